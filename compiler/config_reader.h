/* Reading typed, ranged values out of a JSON configuration. The first error stays in `status`; after it, every function
 * returns at once with its fallback, so that a caller reads many keys and checks once.
 */
#ifndef COMPILER_CONFIG_READER_H
#define COMPILER_CONFIG_READER_H

#include "compiler/config_fields.h"
#include "compiler/model_config.h"

typedef struct config_reader {
  const sluice_json_document *document;
  const char *text; /* the document's, for the positions of warnings */
  size_t length;
  config_warning *warning; /* may be NULL */
  void *user;
  sluice_status *status;
} config_reader;

/* A place where a value may stand; `object` NULL: it doesn't. Where a key has two spellings, a function takes both
 * places: both may be there when they agree. */
typedef struct config_place {
  const sluice_json_value *object;
  const char *key;
} config_place;

#define CONFIG_REQUIRED INT64_MIN

void config_fail(config_reader *reader, const sluice_json_value *where, sluice_code code, const char *format, ...)
    SLUICE_PRINTF(4, 5);
/* "FILE:LINE:COL: KIND: ..." to the warning function; `kind` is "warning" or "note". */
void config_say(config_reader *reader, size_t offset, const char *kind, const char *format, ...) SLUICE_PRINTF(4, 5);

/* Checks that `object` is an object, warns of unknown keys, refuses known keys with unsupported values. */
void config_check_object(config_reader *reader, const sluice_json_value *object, const config_object *known);

/* The object `key` of `object`, checked against `known`; NULL when absent or null. */
const sluice_json_value *config_child(config_reader *reader, const sluice_json_value *object, const char *key,
                                      const config_object *known);

/* An integer from `minimum` to `maximum`. `fallback` when absent; CONFIG_REQUIRED makes that an error at the object.
 * `out_where` (may be NULL) gets the value's place, or the first object when absent. */
int64_t config_integer(config_reader *reader, const config_place places[2], int64_t minimum, int64_t maximum,
                       int64_t fallback, const sluice_json_value **out_where);
/* A number above `minimum` and at most `maximum`; NAN as `fallback` makes it required. */
double config_number(config_reader *reader, const config_place places[2], double minimum, double maximum,
                     double fallback, const sluice_json_value **out_where);
bool config_bool(config_reader *reader, const sluice_json_value *object, const char *key, bool fallback);

/* One flag for each layer, from a list of 0 and 1 (`numbers`) or of the two `names` (`words`). Required in one of the
 * two; both may be there when they agree. */
void config_layer_flags(config_reader *reader, config_place numbers, config_place words, const char *const names[2],
                        int64_t layers, bool *out_flags);

/* The value as messages show it, at most 60 characters. */
typedef struct config_shown {
  char text[64];
} config_shown;
config_shown config_show(const config_reader *reader, const sluice_json_value *value);

#endif
