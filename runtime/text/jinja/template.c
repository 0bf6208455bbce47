/* Templates as a whole: from text, and rendering. */
#include "runtime/text/jinja/jinja.h"
#include "runtime/text/utf8.h"
#include "sluice/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_TEMPLATE_BYTES = 16 << 20 };

sluice_status *jinja_error_at(const sluice_template *template, size_t offset, sluice_code code, const char *format,
                              ...) {
  char message[1400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (offset > template->length) offset = template->length;
  size_t start = offset, end = offset;
  unsigned line = 1;
  while (start > 0 && template->text[start - 1] != '\n') start--;
  while (end < template->length && template->text[end] != '\n') end++;
  for (size_t i = 0; i < start; i++) line += template->text[i] == '\n';
  return sluice_error_at(code, template->file, line, (unsigned)(offset - start + 1), template->text + start,
                         end - start, "%s", message);
}

/* ---- Names ---- */

static size_t hash_name(const char *name, size_t length) {
  size_t hash = 5381;
  for (size_t i = 0; i < length; i++) hash = hash * 33 + (unsigned char)name[i];
  return hash;
}

static bool grow_names(sluice_template *t) {
  size_t capacity = t->name_capacity ? 2 * t->name_capacity : 256;
  const char **names = sluice_allocate_array(capacity, sizeof *names);
  if (!names) return false;
  for (size_t i = 0; i < t->name_capacity; i++) {
    if (!t->names[i]) continue;
    size_t at = hash_name(t->names[i], strlen(t->names[i])) & (capacity - 1);
    while (names[at]) at = (at + 1) & (capacity - 1);
    names[at] = t->names[i];
  }
  sluice_release(t->names);
  t->names = names;
  t->name_capacity = capacity;
  return true;
}

const char *jinja_intern(sluice_template *t, const char *name, size_t length) {
  if (2 * t->name_count >= t->name_capacity && !grow_names(t)) return NULL;
  size_t at = hash_name(name, length) & (t->name_capacity - 1);
  for (; t->names[at]; at = (at + 1) & (t->name_capacity - 1))
    if (strlen(t->names[at]) == length && memcmp(t->names[at], name, length) == 0) return t->names[at];
  char *copy = jinja_take(&t->arena, length + 1);
  if (!copy) return NULL;
  memcpy(copy, name, length);
  t->name_count++;
  return t->names[at] = copy;
}

/* ---- Parsing ---- */

/* The text with "\n" for every end of a line, without the last one. */
static sluice_status *take_text(sluice_template *t, const char *text, size_t length) {
  t->text = sluice_allocate(length + 1);
  if (!t->text) return sluice_out_of_memory();
  for (size_t i = 0; i < length; i++) {
    if (text[i] == '\r' && i + 1 < length && text[i + 1] == '\n') continue;
    t->text[t->length++] = text[i] == '\r' ? '\n' : text[i];
  }
  size_t valid = utf8_valid_prefix((const unsigned char *)t->text, t->length);
  if (valid < t->length) return jinja_error_at(t, valid, SLUICE_INVALID, "this is not valid UTF-8");
  if (t->length && t->text[t->length - 1] == '\n') t->length--;
  return NULL;
}

static sluice_status *parse(sluice_template *t, const char *text, size_t length, const char *file) {
  t->file = sluice_copy_string(file, strlen(file));
  if (!t->file) return sluice_out_of_memory();
  SLUICE_TRY(take_text(t, text, length));
  t->loop = jinja_intern(t, "loop", 4);
  t->caller = jinja_intern(t, "caller", 6);
  t->varargs = jinja_intern(t, "varargs", 7);
  t->kwargs = jinja_intern(t, "kwargs", 6);
  if (!t->loop || !t->caller || !t->varargs || !t->kwargs) return sluice_out_of_memory();
  SLUICE_TRY(jinja_lex(t));
  SLUICE_TRY(jinja_parse(t));
  sluice_release(t->tokens);
  t->tokens = NULL;
  return NULL;
}

sluice_status *sluice_template_parse(const char *text, size_t length, const char *file,
                                     sluice_template **out_template) {
  *out_template = NULL;
  if (length > MAX_TEMPLATE_BYTES)
    return sluice_error(SLUICE_INVALID, "%s: a template of %zu bytes, expected at most %d", file, length,
                        MAX_TEMPLATE_BYTES);
  sluice_template *t = sluice_allocate(sizeof *t);
  if (!t) return sluice_out_of_memory();
  sluice_status *status = parse(t, text, length, file);
  if (status) {
    sluice_template_free(t);
    return status;
  }
  *out_template = t;
  return NULL;
}

void sluice_template_free(sluice_template *t) {
  if (!t) return;
  jinja_arena_free(&t->arena);
  sluice_release(t->file);
  sluice_release(t->text);
  sluice_release(t->names);
  sluice_release(t->tokens);
  sluice_release(t);
}

/* ---- Rendering ---- */

static sluice_status *set_context(jinja_environment *e, const sluice_template_variables *variables, size_t count) {
  jinja_value context;
  SLUICE_TRY(jinja_dict_new(e, &context));
  e->context = context.dict;
  for (size_t i = 0; i < count; i++) {
    const sluice_json_value *object = variables[i].object;
    if (!object) continue;
    if (object->kind != SLUICE_JSON_OBJECT)
      return sluice_error(SLUICE_INVALID, "the variables of a template are %s, expected an object",
                          sluice_json_kind_name(object->kind));
    for (size_t j = 0; j < object->length; j++) {
      jinja_value key, value;
      SLUICE_TRY(jinja_new_string(e, object->members[j].key, object->members[j].key_length, false, &key));
      SLUICE_TRY(jinja_from_json(e, &object->members[j].value, variables[i].plain, &value));
      SLUICE_TRY(jinja_dict_set(e, e->context, &key, &value));
    }
  }
  return NULL;
}

static sluice_status *copy_result(const jinja_environment *e, sluice_rendered *out) {
  const jinja_buffer *buffer = e->output;
  out->text = sluice_copy_string(buffer->data, buffer->length);
  out->plain = sluice_allocate_array(buffer->plain_count, sizeof *out->plain);
  if (!out->text || !out->plain) {
    sluice_rendered_free(out);
    return sluice_out_of_memory();
  }
  out->length = buffer->length;
  out->plain_count = buffer->plain_count;
  if (buffer->plain_count) memcpy(out->plain, buffer->plain, buffer->plain_count * sizeof *out->plain);
  return NULL;
}

static sluice_status *render(jinja_environment *e, const sluice_template_variables *variables, size_t count,
                             sluice_rendered *out) {
  SLUICE_TRY(set_context(e, variables, count));
  SLUICE_TRY(jinja_buffer_new(e, 4096, &e->output));
  SLUICE_TRY(jinja_scope_new(e, NULL, &e->scope));
  SLUICE_TRY(jinja_run(e, e->template->body, e->template->body_count));
  return copy_result(e, out);
}

sluice_status *sluice_template_render(const sluice_template *template, const sluice_template_variables *variables,
                                      size_t variable_count, int64_t now, const sluice_template_limits *limits,
                                      sluice_rendered *out_rendered) {
  *out_rendered = (sluice_rendered){0};
  jinja_environment e = {.template = template, .now = now < 0 ? (int64_t)time(NULL) : now};
  if (limits) e.limits = *limits;
  if (!e.limits.steps) e.limits.steps = 50000000;
  if (!e.limits.depth) e.limits.depth = 2000;
  if (!e.limits.output) e.limits.output = (size_t)128 << 20;
  if (!e.limits.memory) e.limits.memory = (size_t)1 << 30;
  e.arena.limit = e.limits.memory;
  sluice_status *status = render(&e, variables, variable_count, out_rendered);
  jinja_arena_free(&e.arena);
  return status;
}

void sluice_rendered_free(sluice_rendered *rendered) {
  sluice_release(rendered->text);
  sluice_release(rendered->plain);
  *rendered = (sluice_rendered){0};
}
