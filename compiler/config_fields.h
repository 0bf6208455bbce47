/* Every key of config.json that sluice knows, with what it does about it. docs/config.md prints these tables; a test
 * keeps the two equal.
 */
#ifndef COMPILER_CONFIG_FIELDS_H
#define COMPILER_CONFIG_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum config_use {
  CONFIG_USED,       /* decides what is compiled */
  CONFIG_IGNORED,    /* has no influence on text inference; accepted silently, whatever its value */
  CONFIG_ONLY_TRUE,  /* accepted with this value alone, everything else is refused by name; absent is fine */
  CONFIG_ONLY_FALSE, /* likewise */
  CONFIG_ONLY_NULL,  /* likewise; `null` */
  CONFIG_ONLY_TEXT,  /* likewise; the string `text` */
  CONFIG_ONLY_ONE,   /* likewise; the number 1 */
} config_use;

typedef struct config_key {
  const char *name;
  config_use use;
  const char *text;    /* CONFIG_ONLY_TEXT: the value */
  const char *meaning; /* one line for the documentation; for CONFIG_ONLY_*: what another value would ask for */
} config_key;

typedef struct config_object {
  const char *name; /* as messages and docs/config.md call it */
  const config_key *keys;
  size_t count;
  bool others_ignored; /* no warning about a key that is not in the table */
} config_object;

extern const config_object config_root, config_text, config_sparse, config_rope, config_vision, config_generation;
/* All of them, for documentation and tests. */
extern const config_object *const config_objects[];
extern const size_t config_object_count;

#endif
