/*
 * Embeds sluice in a C program: loads a configuration and streams the answer to a prompt.
 *
 *     embed_c CONFIG.toml PROMPT [TOKENS_MAX]
 */
#include <sluice/sluice.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char* what, const sluice_error* error) {
    fprintf(stderr, "embed_c: %s: %s\n", what, error->message);
    return 1;
}

/* Prints pieces as they come, then one line of figures. Returns the exit status. */
static int stream(sluice_generation* generation) {
    sluice_error error = SLUICE_INIT(sluice_error);
    const sluice_generation_event* event = NULL;
    do {
        if (sluice_generation_next(generation, SLUICE_WAIT_FOREVER, &event, &error) != SLUICE_OK) {
            return fail("reading", &error);
        }
        if (event == NULL) return 0; /* all events were taken */
        fwrite(event->text.data, 1, (size_t)event->text.size, stdout);
        fflush(stdout);
    } while (event->finish == SLUICE_FINISH_NONE);

    if (event->finish == SLUICE_FINISH_FAILED) {
        fprintf(stderr, "\nembed_c: %s\n", event->message.data);
        return 1;
    }
    fprintf(stderr, "\n%u prompt tokens, %u generated, first after %.3f s, then %.1f per second\n",
            event->usage->prompt_tokens, event->usage->completion_tokens,
            event->usage->time_to_first_token_s, event->usage->tokens_per_second);
    return 0;
}

int main(int argument_count, char** arguments) {
    if (argument_count < 3 || argument_count > 4) {
        fprintf(stderr, "usage: %s CONFIG.toml PROMPT [TOKENS_MAX]\n", arguments[0]);
        return 2;
    }
    sluice_generation_options options = SLUICE_INIT(sluice_generation_options);
    options.prompt.data = arguments[2];
    options.prompt.size = strlen(arguments[2]);
    if (argument_count == 4) {
        char* end = NULL;
        errno = 0;
        unsigned long count = strtoul(arguments[3], &end, 10);
        if (errno != 0 || *end != '\0' || count == 0 || count > UINT32_MAX) {
            fprintf(stderr, "embed_c: TOKENS_MAX: expected a number from 1, found \"%s\"\n",
                    arguments[3]);
            return 2;
        }
        options.tokens_max = (uint32_t)count;
        options.set |= SLUICE_SET_TOKENS_MAX;
    }

    sluice_error error = SLUICE_INIT(sluice_error);
    sluice_runtime* runtime = NULL;
    if (sluice_runtime_create_from_file(arguments[1], NULL, &runtime, &error) != SLUICE_OK) {
        return fail("loading", &error);
    }
    sluice_generation* generation = NULL;
    int result = 1;
    if (sluice_runtime_submit(runtime, &options, &generation, &error) == SLUICE_OK) {
        result = stream(generation);
    } else {
        fail("submitting", &error);
    }
    sluice_generation_destroy(generation);
    sluice_runtime_destroy(runtime);
    return result;
}
