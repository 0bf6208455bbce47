/* Answers parsed back, as their text arrives: the markers. tool_call.c has the calls themselves. */
#include "sluice/answer.h"
#include "runtime/text/tool_call.h"
#include "sluice/memory.h"

#include <string.h>

enum state {
  STATE_START, /* nothing but newlines came: a closing marker is dropped */
  STATE_REASONING,
  STATE_CONTENT,
  STATE_CALLS,  /* within a block of tool calls */
  STATE_BROKEN, /* within one that is malformed: everything is content up to its end */
};

struct sluice_answer_parser {
  sluice_answer_options options;
  const tool_syntax *syntax; /* NULL: no tool calls */
  sluice_answer_handler *handler;
  void *user;
  enum state state;
  bool skip_newlines; /* those behind a marker */
  sluice_text text;   /* what has not been told yet */
  size_t searched;    /* bytes of it that hold no end of a call */
  size_t block;       /* bytes at its beginning that opened the block of calls, while no call of it was told */
};

sluice_status *sluice_answer_create(const sluice_answer_options *options, sluice_answer_handler *handler, void *user,
                                    sluice_answer_parser **out_parser) {
  sluice_answer_parser *p = sluice_allocate(sizeof *p);
  *out_parser = p;
  if (!p) return sluice_out_of_memory();
  p->options = *options;
  p->handler = handler;
  p->user = user;
  p->syntax = tool_syntax_of(options->tools);
  p->state = !options->reasoning_begin ? STATE_CONTENT : options->starts_in_reasoning ? STATE_REASONING : STATE_START;
  p->skip_newlines = p->state == STATE_REASONING;
  return NULL;
}

void sluice_answer_free(sluice_answer_parser *p) {
  if (!p) return;
  sluice_text_free(&p->text);
  sluice_release(p);
}

/* ---- Telling ---- */

static sluice_status *tell(sluice_answer_parser *p, sluice_answer_kind kind, const char *text, size_t length,
                           const char *name) {
  char *copy = sluice_copy_string(text, length);
  if (!copy) return sluice_out_of_memory();
  const sluice_answer_event event = {.kind = kind, .text = copy, .length = length, .name = name};
  sluice_status *status = p->handler(p->user, &event);
  sluice_release(copy);
  return status;
}

static void drop(sluice_answer_parser *p, size_t bytes) {
  if (!bytes) return;
  memmove(p->text.data, p->text.data + bytes, p->text.length - bytes + 1);
  p->text.length -= bytes;
  p->searched = p->searched > bytes ? p->searched - bytes : 0;
}

/* Tells the first `bytes` of the text as words of the state at hand and drops them. */
static sluice_status *tell_words(sluice_answer_parser *p, size_t bytes) {
  if (!bytes) return NULL;
  SLUICE_TRY(tell(p, p->state == STATE_REASONING ? SLUICE_ANSWER_REASONING : SLUICE_ANSWER_CONTENT, p->text.data, bytes,
                  NULL));
  drop(p, bytes);
  return NULL;
}

static sluice_status *note(sluice_answer_parser *p, const char *words) {
  return tell(p, SLUICE_ANSWER_NOTE, words, strlen(words), NULL);
}

/* ---- Markers ---- */

typedef struct found_marker {
  size_t at;      /* of the first marker that is whole; the text's length when there is none */
  int which;      /* its index; -1: none */
  size_t settled; /* without one: bytes that cannot be part of one */
} found_marker;

/* The first of the markers, and where at the end of the text one may begin. */
static found_marker find_marker(const sluice_text *text, const char *const *markers, int count) {
  found_marker found = {.at = text->length, .which = -1, .settled = text->length};
  for (int i = 0; i < count; i++) {
    if (!markers[i]) continue;
    const size_t length = strlen(markers[i]);
    const char *at = memmem(text->data, text->length, markers[i], length);
    if (at && (size_t)(at - text->data) < found.at) {
      found.at = (size_t)(at - text->data);
      found.which = i;
    }
    for (size_t part = length - 1; part > 0; part--)
      if (part <= text->length && memcmp(text->data + text->length - part, markers[i], part) == 0) {
        if (text->length - part < found.settled) found.settled = text->length - part;
        break;
      }
  }
  return found;
}

static size_t before_newlines(const sluice_text *text, size_t end) {
  while (end > 0 && text->data[end - 1] == '\n') end--;
  return end;
}

static void enter(sluice_answer_parser *p, enum state state, size_t marker) {
  drop(p, marker);
  p->state = state;
  p->skip_newlines = true;
}

/* ---- The states: each tells whether the text at hand may hold more for the next one ---- */

static bool leading_newlines(sluice_answer_parser *p) {
  if (!p->skip_newlines) return true;
  size_t count = 0;
  while (count < p->text.length && p->text.data[count] == '\n') count++;
  drop(p, count);
  if (!p->text.length) return false;
  p->skip_newlines = false;
  return true;
}

static sluice_status *start(sluice_answer_parser *p, bool *again) {
  size_t at = 0, length = strlen(p->options.reasoning_end);
  while (at < p->text.length && p->text.data[at] == '\n') at++;
  size_t left = p->text.length - at, same = left < length ? left : length;
  if (memcmp(p->text.data + at, p->options.reasoning_end, same) != 0) {
    p->state = STATE_CONTENT;
  } else if (same == length) {
    enter(p, STATE_CONTENT, at + length);
  } else {
    return NULL; /* it may become the marker */
  }
  *again = true;
  return NULL;
}

static sluice_status *reasoning(sluice_answer_parser *p, bool *again) {
  if (!leading_newlines(p)) return NULL;
  const found_marker found = find_marker(&p->text, &p->options.reasoning_end, 1);
  if (found.which < 0) return tell_words(p, before_newlines(&p->text, found.settled));
  const size_t words = before_newlines(&p->text, found.at), gap = found.at - words;
  SLUICE_TRY(tell_words(p, words));
  enter(p, STATE_CONTENT, gap + strlen(p->options.reasoning_end));
  *again = true;
  return NULL;
}

static sluice_status *content(sluice_answer_parser *p, bool *again) {
  if (!leading_newlines(p)) return NULL;
  const char *const markers[] = {p->options.reasoning_begin, p->syntax ? p->syntax->begin : NULL};
  const found_marker found = find_marker(&p->text, markers, 2);
  if (found.which < 0) return tell_words(p, before_newlines(&p->text, found.settled));
  const size_t words = before_newlines(&p->text, found.at), gap = found.at - words;
  SLUICE_TRY(tell_words(p, words));
  *again = true;
  if (found.which == 0) {
    enter(p, STATE_REASONING, gap + strlen(markers[0]));
    return NULL;
  }
  /* The newlines and the marker stay until a call is known to be one. */
  p->state = STATE_CALLS;
  p->block = gap + strlen(markers[1]);
  p->searched = p->block;
  return NULL;
}

static sluice_status *break_off(sluice_answer_parser *p, const char *why) {
  SLUICE_TRY(note(p, why));
  p->state = STATE_BROKEN;
  p->block = 0;
  return NULL;
}

static sluice_status *tell_call(sluice_answer_parser *p, const char *text, size_t length) {
  tool_call call = {0};
  const char *why = NULL;
  sluice_status *status = tool_call_parse(p->syntax, p->options.schemas, text, length, &call, &why);
  if (!status && why)
    status = break_off(p, why);
  else if (!status)
    status = tell(p, SLUICE_ANSWER_TOOL_CALL, call.arguments.data, call.arguments.length, call.name.data);
  tool_call_free(&call);
  return status;
}

/* Behind the block's opening, or behind a call: another call, or the end of the block. */
static sluice_status *calls(sluice_answer_parser *p, bool *again) {
  size_t at = p->block;
  while (at < p->text.length && strchr(" \t\r\n", p->text.data[at]) && p->text.data[at]) at++;
  const size_t left = p->text.length - at, end = strlen(p->syntax->end), begin = strlen(p->syntax->call_begin);
  const bool may_end = memcmp(p->text.data + at, p->syntax->end, left < end ? left : end) == 0;
  const bool may_call = memcmp(p->text.data + at, p->syntax->call_begin, left < begin ? left : begin) == 0;
  *again = true;
  if (may_end && left >= end) {
    if (p->block) return break_off(p, "a block of tool calls is empty; it is left as text");
    enter(p, STATE_CONTENT, at + end);
    return NULL;
  }
  if (!may_end && !may_call)
    return break_off(p, "a block of tool calls has something that is no call; it is left as text");
  *again = false;
  if (!may_call || left < begin) return NULL;
  if (p->searched < at) p->searched = at;
  const size_t close = strlen(p->syntax->call_end);
  const char *found = memmem(p->text.data + p->searched, p->text.length - p->searched, p->syntax->call_end, close);
  if (!found) {
    p->searched = p->text.length - at > close ? p->text.length - close : at;
    return NULL;
  }
  *again = true;
  const size_t call_end = (size_t)(found - p->text.data) + close;
  SLUICE_TRY(tell_call(p, p->text.data + at, call_end - at));
  if (p->state != STATE_CALLS) return NULL;
  p->block = 0;
  drop(p, call_end);
  p->searched = 0;
  return NULL;
}

static sluice_status *broken(sluice_answer_parser *p, bool *again) {
  const found_marker found = find_marker(&p->text, &p->syntax->end, 1);
  if (found.which < 0) return tell_words(p, found.settled);
  SLUICE_TRY(tell_words(p, found.at + strlen(p->syntax->end)));
  p->state = STATE_CONTENT;
  *again = true;
  return NULL;
}

static sluice_status *advance(sluice_answer_parser *p) {
  static sluice_status *(*const steps[])(sluice_answer_parser *, bool *) = {start, reasoning, content, calls, broken};
  for (bool again = p->text.length > 0; again;) {
    again = false;
    SLUICE_TRY(steps[p->state](p, &again));
    again = again && p->text.length > 0;
  }
  return NULL;
}

sluice_status *sluice_answer_feed(sluice_answer_parser *p, const char *text, size_t length) {
  sluice_text_append(&p->text, text, length);
  if (p->text.failed) return sluice_out_of_memory();
  return advance(p);
}

sluice_status *sluice_answer_finish(sluice_answer_parser *p) {
  if (!p->text.length) return NULL;
  if (p->state == STATE_CALLS) {
    size_t at = 0;
    while (at < p->text.length && strchr(" \t\r\n", p->text.data[at]) && p->text.data[at]) at++;
    if (at == p->text.length) { /* whole calls came, only the end of the block is missing */
      drop(p, at);
      return note(p, "the answer ends without the end of its block of tool calls");
    }
    SLUICE_TRY(break_off(p, "the answer ends within a tool call, which is left as text"));
  }
  if (p->state == STATE_REASONING) { /* newlines at its end do not belong to it */
    p->text.length = before_newlines(&p->text, p->text.length);
  }
  return tell_words(p, p->text.length);
}

sluice_answer_options sluice_answer_options_for(const sluice_chat_template *template, const char *prompt,
                                                size_t length) {
  static const char *const markers[][2] = {{"<mm:think>", "</mm:think>"}, {"<think>", "</think>"}};
  sluice_answer_options options = {.tools = sluice_chat_template_tools(template)};
  for (size_t i = 0; i < 2 && !options.reasoning_begin; i++) {
    if (!sluice_chat_template_mentions(template, markers[i][1])) continue;
    options.reasoning_begin = markers[i][0];
    options.reasoning_end = markers[i][1];
  }
  if (!options.reasoning_begin) return options;
  while (length > 0 && prompt[length - 1] == '\n') length--;
  const size_t begin = strlen(options.reasoning_begin);
  options.starts_in_reasoning = length >= begin && memcmp(prompt + length - begin, options.reasoning_begin, begin) == 0;
  return options;
}
