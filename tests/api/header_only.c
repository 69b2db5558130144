/* sluice.h in plain C11, and the plainest use of it: every call with nothing to work on. */
#include <sluice/sluice.h>

#include <stdio.h>
#include <string.h>

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);               \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int main(void) {
    sluice_error error = SLUICE_INIT(sluice_error);
    sluice_runtime* runtime = NULL;
    sluice_generation* generation = NULL;
    const sluice_generation_event* event = NULL;
    uint64_t count = 0;
    sluice_text nothing = {NULL, 0};

    EXPECT(strlen(sluice_version()) > 0);
    EXPECT(sluice_runtime_create_from_file(NULL, NULL, &runtime, &error) == SLUICE_INVALID);
    EXPECT(runtime == NULL && strlen(error.message) > 0);
    EXPECT(sluice_runtime_create_from_file("/no/such.toml", NULL, &runtime, NULL) != SLUICE_OK);
    EXPECT(sluice_runtime_create_from_text(nothing, NULL, NULL, &error) == SLUICE_INVALID);
    EXPECT(sluice_runtime_model_info(NULL, NULL, &error) == SLUICE_INVALID);
    EXPECT(sluice_runtime_tokenize(NULL, nothing, 0, NULL, 0, &count, &error) == SLUICE_INVALID);
    EXPECT(sluice_runtime_submit(NULL, NULL, &generation, &error) == SLUICE_INVALID);
    EXPECT(sluice_generation_next(NULL, 0, &event, &error) == SLUICE_INVALID);
    EXPECT(sluice_generation_finished(NULL) == 0);
    sluice_generation_wait(NULL);
    sluice_generation_cancel(NULL);
    sluice_generation_destroy(NULL);
    sluice_runtime_destroy(NULL);
    return 0;
}
