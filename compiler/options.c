#include "compiler/options.h"

#include "compiler/suggest.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void option_list_free(option_list *list) {
  for (size_t i = 0; i < list->count; i++) sluice_release(list->items[i]);
  sluice_release(list->items);
  *list = (option_list){0};
}

static sluice_status *add_item(option_list *list, const char *text, size_t length) {
  char **items = sluice_reallocate_array(list->items, list->count + 1, sizeof *items);
  if (!items) return sluice_out_of_memory();
  list->items = items;
  items[list->count] = sluice_copy_string(text, length);
  if (!items[list->count]) return sluice_out_of_memory();
  list->count++;
  return NULL;
}

sluice_status *option_list_add(option_list *list, const char *item) {
  return add_item(list, item, strlen(item));
}

static sluice_status *add_items(option_list *list, const char *name, const char *text) {
  for (const char *at = text;;) {
    size_t length = strcspn(at, ",");
    if (length == 0) return sluice_error(SLUICE_USAGE, "--%s has an empty element in '%s'", name, text);
    SLUICE_TRY(add_item(list, at, length));
    at += length;
    if (*at == 0) return NULL;
    at++;
  }
}

static sluice_status *set_value(const option_description *option, void *values, const char *text) {
  void *place = (char *)values + option->offset;
  char *end;
  switch (option->kind) {
  case OPTION_FLAG:
    *(bool *)place = true;
    return NULL;
  case OPTION_TEXT:
  case OPTION_INPUT:
  case OPTION_OUTPUT:
    *(const char **)place = text;
    return NULL;
  case OPTION_LIST:
    return add_items(place, option->name, text);
  case OPTION_INTEGER: {
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool digits = (text[0] >= '0' && text[0] <= '9') || (text[0] == '-' && text[1] >= '0' && text[1] <= '9');
    if (!digits || *end || errno || value < option->minimum)
      return sluice_error(SLUICE_USAGE, "--%s is '%s', expected an integer of at least %lld", option->name, text,
                          (long long)option->minimum);
    *(int64_t *)place = value;
    return NULL;
  }
  case OPTION_NUMBER: {
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value <= 0)
      return sluice_error(SLUICE_USAGE, "--%s is '%s', expected a number above 0", option->name, text);
    *(double *)place = value;
    return NULL;
  }
  }
  return sluice_error(SLUICE_INTERNAL, "option --%s has no kind", option->name);
}

static const option_description *find_option(const command_description *command, const char *name, size_t length) {
  for (size_t i = 0; i < command->option_count; i++) {
    const option_description *option = &command->options[i];
    if (strlen(option->name) == length && memcmp(option->name, name, length) == 0) return option;
  }
  return NULL;
}

static const option_description *find_letter(const command_description *command, char letter) {
  for (size_t i = 0; i < command->option_count; i++)
    if (letter && command->options[i].letter == letter) return &command->options[i];
  return NULL;
}

static sluice_status *unknown_option(const command_description *command, const char *given, size_t length) {
  char name[64];
  size_t kept = length < sizeof name - 1 ? length : sizeof name - 1;
  memcpy(name, given, kept);
  name[kept] = 0;
  const char *dashes = name + strspn(name, "-");
  const char *near = suggest_nearest(dashes, command->options, command->option_count, sizeof command->options[0]);
  if (near)
    return sluice_error(SLUICE_USAGE, "unknown option '%s', did you mean '--%s'? See 'sluice %s --help'", name, near,
                        command->name);
  return sluice_error(SLUICE_USAGE, "unknown option '%s', see 'sluice %s --help'", name, command->name);
}

static sluice_status *check_required(const command_description *command, const bool *given, const char *operand) {
  for (size_t i = 0; i < command->option_count; i++)
    if (command->options[i].required && !given[i])
      return sluice_error(SLUICE_USAGE, "option '--%s %s' is needed, see 'sluice %s --help'", command->options[i].name,
                          command->options[i].argument, command->name);
  if (!operand)
    return sluice_error(SLUICE_USAGE, "%s is missing, see 'sluice %s --help'", command->operand, command->name);
  return NULL;
}

static sluice_status *parse_all(const command_description *command, int argc, char **argv, void *values, bool *given,
                                const char **out_operand) {
  bool only_operands = false;
  for (int i = 0; i < argc; i++) {
    char *argument = argv[i];
    if (!only_operands && strcmp(argument, "--") == 0) {
      only_operands = true;
      continue;
    }
    if (only_operands || argument[0] != '-' || argument[1] == 0) {
      if (command->many) SLUICE_TRY(option_list_add((void *)((char *)values + command->operands), argument));
      if (*out_operand && command->many) continue;
      if (*out_operand)
        return sluice_error(SLUICE_USAGE, "'%s' is one operand too many, see 'sluice %s --help'", argument,
                            command->name);
      *out_operand = argument;
      continue;
    }
    const option_description *option;
    const char *value = NULL;
    size_t length = strcspn(argument, "=");
    if (argument[1] == '-') {
      option = find_option(command, argument + 2, length - 2);
      if (argument[length] == '=') value = argument + length + 1;
    } else {
      option = find_letter(command, argument[1]);
      if (argument[2]) value = argument + 2;
    }
    if (!option) return unknown_option(command, argument, length);
    if (option->kind == OPTION_FLAG && value)
      return sluice_error(SLUICE_USAGE, "option '--%s' takes no value", option->name);
    if (option->kind != OPTION_FLAG && !value) {
      if (i + 1 == argc)
        return sluice_error(SLUICE_USAGE, "option '--%s' needs a value: %s", option->name, option->argument);
      value = argv[++i];
    }
    SLUICE_TRY(set_value(option, values, value));
    given[option - command->options] = true;
  }
  return check_required(command, given, *out_operand);
}

static sluice_status *check_files(const command_description *command, const void *values, const char *operand) {
  const option_list *many = command->many ? (const void *)((const char *)values + command->operands) : NULL;
  const size_t operands = many ? many->count : 1;
  sluice_file_use *uses = sluice_allocate_array(command->option_count + operands, sizeof *uses);
  if (!uses) return sluice_out_of_memory();
  size_t count = 0;
  while (count < operands) {
    uses[count] = (sluice_file_use){.path = many ? many->items[count] : operand};
    count++;
  }
  for (size_t i = 0; i < command->option_count; i++) {
    const option_description *option = &command->options[i];
    if (option->kind != OPTION_INPUT && option->kind != OPTION_OUTPUT) continue;
    const char *path;
    memcpy(&path, (const char *)values + option->offset, sizeof path);
    if (path) uses[count++] = (sluice_file_use){path, option->name, option->kind == OPTION_OUTPUT};
  }
  sluice_status *status = sluice_file_uses_check(uses, count);
  sluice_release(uses);
  return status;
}

sluice_status *options_parse(const command_description *command, int argc, char **argv, void *values,
                             const char **out_operand, bool *out_help) {
  *out_operand = NULL;
  *out_help = false;
  for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      *out_help = true;
      return NULL;
    }
  bool *given = sluice_allocate_array(command->option_count, sizeof *given);
  if (!given) return sluice_out_of_memory();
  sluice_status *status = parse_all(command, argc, argv, values, given, out_operand);
  sluice_release(given);
  if (!status) status = check_files(command, values, *out_operand);
  return status;
}

void options_print_help(const command_description *command, FILE *out) {
  fprintf(out, "Usage: sluice %s", command->name);
  for (size_t i = 0; i < command->option_count; i++)
    if (command->options[i].required) {
      const option_description *option = &command->options[i];
      if (option->letter)
        fprintf(out, " -%c %s", option->letter, option->argument);
      else
        fprintf(out, " --%s %s", option->name, option->argument);
    }
  fprintf(out, " [OPTIONS] %s%s\n\n%s\n\nOptions:\n", command->operand, command->many ? "..." : "", command->summary);
  for (size_t i = 0; i < command->option_count; i++) {
    const option_description *option = &command->options[i];
    char left[80], letter[8] = "";
    if (option->letter) snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(left, sizeof left, "%s--%s%s%s", letter, option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    fprintf(out, "  %-34s%s%s\n", left, strlen(left) >= 34 ? "\n                                    " : "",
            option->help);
  }
  fprintf(out, "  %-34s%s\n", "-h, --help", "show this help");
  if (command->notes) command->notes(out);
}
