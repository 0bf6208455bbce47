#include "runtime/tools/options.h"

#include "runtime/tools/own_bundle.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "sluice-run generate FILE.sluice --weights ..." without the bundle in a program that holds one. */
typedef struct usage_line {
  char text[256];
} usage_line;

static bool takes_bundle(const tool_command *command) {
  return strstr(command->usage, " FILE.sluice") != NULL;
}

static usage_line usage_of(const tool_command *command) {
  static const char bundle[] = " FILE.sluice", program[] = "sluice-run";
  const char *own = own_bundle_program(), *found = own ? strstr(command->usage, bundle) : NULL;
  usage_line line;
  if (found)
    snprintf(line.text, sizeof line.text, "%s%.*s%s", own, (int)(found - command->usage - (long)strlen(program)),
             command->usage + strlen(program), found + strlen(bundle));
  else
    snprintf(line.text, sizeof line.text, "%s%s", own ? own : program, command->usage + strlen(program));
  return line;
}

static void print_help(const tool_command *command) {
  printf("usage: %s\n\n%s\noptions:\n", usage_of(command).text, command->summary);
  for (size_t i = 0; i < command->option_count; i++) {
    const tool_option *option = &command->options[i];
    char left[64];
    snprintf(left, sizeof left, "%s%s%s", option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    printf("  %-26s %s\n", left, option->help);
  }
  printf("  %-26s %s\n", "--help", "print this");
}

static sluice_status *set_value(const tool_option *option, const char *text) {
  char *end = NULL;
  errno = 0;
  switch (option->kind) {
  case TOOL_FLAG:
    break;
  case TOOL_TEXT:
  case TOOL_INPUT:
  case TOOL_OUTPUT:
    *(const char **)option->value = text;
    break;
  case TOOL_COUNT: {
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno)
      return sluice_error(SLUICE_USAGE, "%s: \"%s\" is not a non-negative integer", option->name, text);
    *(uint64_t *)option->value = value;
    break;
  }
  case TOOL_LIST: {
    tool_list *list = option->value;
    if (list->count == TOOL_LIST_MOST)
      return sluice_error(SLUICE_USAGE, "%s can be given %d times at most", option->name, TOOL_LIST_MOST);
    list->items[list->count++] = text;
    break;
  }
  case TOOL_REAL: {
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
      return sluice_error(SLUICE_USAGE, "%s: \"%s\" is not a number", option->name, text);
    *(double *)option->value = value;
    break;
  }
  }
  return NULL;
}

static const tool_option *find_option(const tool_command *command, const char *word, size_t length) {
  for (size_t i = 0; i < command->option_count; i++)
    if (strlen(command->options[i].name) == length && memcmp(command->options[i].name, word, length) == 0)
      return &command->options[i];
  return NULL;
}

static sluice_status *check_files(const tool_command *command, const char *bundle) {
  sluice_file_use *uses = sluice_allocate_array(command->option_count + 1, sizeof *uses);
  if (!uses) return sluice_out_of_memory();
  size_t count = 0;
  if (bundle) uses[count++] = (sluice_file_use){.path = bundle};
  for (size_t i = 0; i < command->option_count; i++) {
    const tool_option *option = &command->options[i];
    if (option->kind != TOOL_INPUT && option->kind != TOOL_OUTPUT) continue;
    const char *path = *(const char **)option->value;
    if (path) uses[count++] = (sluice_file_use){path, option->name, option->kind == TOOL_OUTPUT};
  }
  sluice_status *status = sluice_file_uses_check(uses, count);
  sluice_release(uses);
  return status;
}

sluice_status *tool_parse(const tool_command *command, int argc, char **argv, const char **out_file, bool *out_help) {
  const char *bundle = NULL;
  if (out_file) *out_file = NULL;
  *out_help = false;
  const bool own = out_file && takes_bundle(command) && own_bundle_program();
  for (int i = 0; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      print_help(command);
      *out_help = true;
      return NULL;
    }
  for (int i = 0; i < argc; i++) {
    const char *word = argv[i];
    if (word[0] != '-' || !word[1]) {
      if (bundle || !out_file || own)
        return sluice_error(SLUICE_USAGE, "unexpected argument \"%s\"%s; usage: %s", word,
                            own ? ": this program has its own bundle" : "", usage_of(command).text);
      bundle = word;
      continue;
    }
    const char *equals = strchr(word, '=');
    const tool_option *option = find_option(command, word, equals ? (size_t)(equals - word) : strlen(word));
    if (!option) return sluice_error(SLUICE_USAGE, "unknown option \"%s\"; see --help", word);
    if (option->kind == TOOL_FLAG) {
      if (equals) return sluice_error(SLUICE_USAGE, "%s takes no value", option->name);
      *(bool *)option->value = true;
      continue;
    }
    const char *text = equals ? equals + 1 : ++i < argc ? argv[i] : NULL;
    if (!text) return sluice_error(SLUICE_USAGE, "%s needs a value: %s", option->name, option->argument);
    SLUICE_TRY(set_value(option, text));
  }
  if (own) SLUICE_TRY(own_bundle_path(&bundle));
  if (!bundle && out_file) return sluice_error(SLUICE_USAGE, "no file given; usage: %s", usage_of(command).text);
  if (out_file) *out_file = bundle;
  return check_files(command, bundle);
}
