/* Answers parsed back: what becomes of a text, and that cutting it into pieces changes nothing. */
#include "sluice/answer.h"
#include "sluice/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define M "]<]minimax[>["
#define CALLS(body) M "<tool_call>\n" body M "</tool_call>"
#define CALL(name, body) M "<invoke name=\"" name "\">" body M "</invoke>\n"
#define P(key, value) M "<" key ">" value M "</" key ">"

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"s\": {\"type\": \"string\"}, \"n\": {\"type\": \"number\"}, \"i\": {\"type\": \"integer\"}, \"b\": {\"type\": "
    "\"boolean\"}, \"o\": {\"type\": \"object\", \"properties\": {\"q\": {\"type\": \"integer\"}, \"s\": {\"type\": "
    "\"string\"}}}, \"l\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}}, \"ll\": {\"type\": \"array\", "
    "\"items\": {\"type\": \"array\", \"items\": {\"type\": \"number\"}}}, \"m\": {\"type\": [\"integer\", \"null\"]}, "
    "\"a\": {\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}, \"e\": {\"enum\": [\"1\", \"x\"]}}}}}]";

/* What the handler was told: words of one kind in a row are one. */
typedef struct log {
  sluice_text text;
  int last;
} log;

static sluice_status *record(void *user, const sluice_answer_event *event) {
  log *l = user;
  static const char *const kinds[] = {"R", "C", "T", "N"};
  if (event->kind != (sluice_answer_kind)l->last || event->kind >= SLUICE_ANSWER_TOOL_CALL)
    sluice_text_printf(&l->text, "%s%s:", l->text.length ? "|" : "", kinds[event->kind]);
  l->last = (int)event->kind;
  assert_int_equal(strlen(event->text), event->length);
  if (event->name) sluice_text_printf(&l->text, "%s", event->name);
  sluice_text_append(&l->text, event->text, event->length);
  return NULL;
}

static char *parse(const char *text, size_t length, const sluice_answer_options *options, unsigned seed) {
  log l = {.last = -1};
  sluice_answer_parser *parser = NULL;
  assert_null(sluice_answer_create(options, record, &l, &parser));
  for (size_t at = 0; at < length;) {
    seed = seed * 1664525 + 1013904223;
    size_t part = !seed ? length : 1 + (seed >> 16) % ((seed >> 8) % 5 == 0 ? 20 : 4);
    if (part > length - at || seed == 1013904223u) part = length - at;
    assert_null(sluice_answer_feed(parser, text + at, part));
    at += part;
  }
  assert_null(sluice_answer_finish(parser));
  sluice_answer_free(parser);
  if (!l.text.data) sluice_text_append(&l.text, "", 0);
  return l.text.data;
}

static sluice_json_document *schemas(void) {
  sluice_json_document *document = NULL;
  assert_null(sluice_json_parse(tools, strlen(tools), "tools", &document));
  return document;
}

static void check(const sluice_answer_options *options, const char *text, const char *expected) {
  for (unsigned seed = 0; seed < 20; seed++) {
    char *got = parse(text, strlen(text), options, seed);
    if (strcmp(got, expected) != 0) fail_msg("pieces %u of %s\n got: %s\nwant: %s", seed, text, got, expected);
    sluice_release(got);
  }
}

static sluice_answer_options m3_options(const sluice_json_document *document) {
  return (sluice_answer_options){.reasoning_begin = "<mm:think>",
                                 .reasoning_end = "</mm:think>",
                                 .tools = SLUICE_TOOLS_M3,
                                 .schemas = sluice_json_root(document)};
}

static void reasoning(void **state) {
  (void)state;
  sluice_json_document *document = schemas();
  sluice_answer_options o = m3_options(document);
  check(&o, "", "");
  check(&o, "plain words\n", "C:plain words\n");
  check(&o, "<mm:think>\nhm\n\n</mm:think>\n\nyes", "R:hm|C:yes");
  check(&o, "</mm:think>\nyes</mm:think>no", "C:yes</mm:think>no");
  check(&o, "\n</mm:think>yes", "C:yes");
  check(&o, "before<mm:think>in</mm:think>after", "C:before|R:in|C:after");
  check(&o, "<mm:thin", "C:<mm:thin");
  check(&o, "</mm:thin", "C:</mm:thin");
  check(&o, "<mm:think>never\nends\n", "R:never\nends");
  check(&o, "a < b <m <mm:thing>", "C:a < b <m <mm:thing>");
  o.starts_in_reasoning = true;
  check(&o, "hm</mm:think>yes", "R:hm|C:yes");
  check(&o, "\nhm\n\nstill\n", "R:hm\n\nstill");
  o = (sluice_answer_options){0};
  check(&o, "<think>x</think>\n" M "<tool_call>", "C:<think>x</think>\n" M "<tool_call>");
  sluice_json_free(document);
}

static void calls_of_m3(void **state) {
  (void)state;
  sluice_json_document *document = schemas();
  const sluice_answer_options o = m3_options(document);
  check(&o, "so\n" CALLS(CALL("f", P("s", "x y") P("n", "1.5"))), "C:so|T:f{\"s\": \"x y\", \"n\": 1.5}");
  check(&o, CALLS(CALL("f", P("s", "5") P("i", "5") P("b", "True") P("m", "null") P("a", "7") P("a2", "7"))),
        "T:f{\"s\": \"5\", \"i\": 5, \"b\": true, \"m\": null, \"a\": 7, \"a2\": 7}");
  check(&o, CALLS(CALL("f", P("i", "many") P("a", "x") P("e", "1") P("s", " a\n\"b\" ") P("n", " 2 "))),
        "T:f{\"i\": \"many\", \"a\": \"x\", \"e\": \"1\", \"s\": \" a\\n\\\"b\\\" \", \"n\": 2}");
  check(&o, CALLS(CALL("f", P("o", P("q", "1") P("s", "2")) P("l", P("item", "1") P("item", "b")))),
        "T:f{\"o\": {\"q\": 1, \"s\": \"2\"}, \"l\": [\"1\", \"b\"]}");
  check(&o, CALLS(CALL("f", P("ll", P("item", P("item", "1") P("item", "2")) P("item", "")) P("l", "[\"j\"]"))),
        "T:f{\"ll\": [[1, 2], []], \"l\": [\"j\"]}");
  check(&o,
        CALLS(CALL("f", P("s", "a &lt;b&gt; &amp;amp; &x;")) CALL("g", P("k", P("item", "x")) P("z", P("y", "{}")))),
        "T:f{\"s\": \"a <b> &amp; &x;\"}|T:g{\"k\": [\"x\"], \"z\": {\"y\": {}}}");
  check(&o, M "<tool_call>" M "<invoke name=\"f\">\n  " M "</invoke>" M "</tool_call>\n\nafter", "T:f{}|C:after");
  check(&o, "<mm:think>why</mm:think>\n" CALLS(CALL("f", P("s", ""))), "R:why|T:f{\"s\": \"\"}");
  sluice_json_free(document);
}

static void calls_of_m2(void **state) {
  (void)state;
  sluice_json_document *document = schemas();
  const sluice_answer_options o = {.reasoning_begin = "<think>",
                                   .reasoning_end = "</think>",
                                   .starts_in_reasoning = true,
                                   .tools = SLUICE_TOOLS_M2,
                                   .schemas = sluice_json_root(document)};
  check(&o,
        "plan\n</think>\n\nso\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"s\">a<b>&lt;</parameter>\n"
        "<parameter name=\"o\">{\"q\": [1]}</parameter>\n</invoke>\n<invoke "
        "name=\"g\">\n</invoke>\n</minimax:tool_call>\n",
        "R:plan|C:so|T:f{\"s\": \"a<b>&lt;\", \"o\": {\"q\": [1]}}|T:g{}");
  check(&o, "</think><minimax:tool_call><invoke name=\"f\"><parameter name=\"n\">1</invoke></minimax:tool_call>",
        "N:a parameter of a tool call does not end; it is left as text|C:<minimax:tool_call><invoke "
        "name=\"f\"><parameter name=\"n\">1</invoke></minimax:tool_call>");
  sluice_json_free(document);
}

static void malformed_calls(void **state) {
  (void)state;
  sluice_json_document *document = schemas();
  const sluice_answer_options o = m3_options(document);
  check(&o, "x\n" M "<tool_call>\n" M "</tool_call>y",
        "C:x|N:a block of tool calls is empty; it is left as text|C:\n" M "<tool_call>\n" M "</tool_call>y");
  check(&o, CALLS("words"),
        "N:a block of tool calls has something that is no call; it is left as text|C:" CALLS("words"));
  check(&o, CALLS(CALL("f", P("s", "1")) "words") "more",
        "T:f{\"s\": \"1\"}|N:a block of tool calls has something that is no call; it is left as text|C:\nwords" M
        "</tool_call>more");
  check(&o, CALLS(CALL("f", M "<s>1" M "</t>")),
        "N:a tag of a tool call is not closed by its own; it is left as text|C:" CALLS(CALL("f", M "<s>1" M "</t>")));
  check(&o, CALLS(CALL("f", P("s", "1") P("s", "2"))),
        "N:a tool call gives one parameter twice; it is left as text|C:" CALLS(CALL("f", P("s", "1") P("s", "2"))));
  check(&o, M "<tool_call>" M "<invoke name=\"f\">" M "<s>1",
        "N:the answer ends within a tool call, which is left as text|C:" M "<tool_call>" M "<invoke name=\"f\">" M
        "<s>1");
  check(&o, M "<tool_call>" CALL("f", ""), "T:f{}|N:the answer ends without the end of its block of tool calls");
  check(&o, M "<tool_cal", "C:" M "<tool_cal");
  check(&o, CALLS(CALL("", "")), "N:a tool call has no name; it is left as text|C:" CALLS(CALL("", "")));
  sluice_json_free(document);
}

/* Random texts of pieces that matter: all at once and in random pieces. */
static void any_pieces(void **state) {
  (void)state;
  static const char *const pieces[] = {"<mm:think>",
                                       "</mm:think>",
                                       "\n",
                                       "words",
                                       M "<tool_call>",
                                       M "</tool_call>",
                                       M "<invoke name=\"f\">",
                                       M "</invoke>",
                                       M "<s>",
                                       M "</s>",
                                       M "<o>",
                                       M "</o>",
                                       M "<item>",
                                       M "</item>",
                                       M "<l>",
                                       M "</l>",
                                       "1",
                                       "<",
                                       "]<]",
                                       "]<]minimax[>",
                                       "\xc3\xa9",
                                       "\xff",
                                       "&lt;",
                                       "<minimax:tool_call>",
                                       "</minimax:tool_call>",
                                       "<invoke name=\"f\">",
                                       "</invoke>",
                                       "<parameter name=\"s\">",
                                       "</parameter>",
                                       CALLS(CALL("f", P("s", "1"))),
                                       " ",
                                       "\"",
                                       "{"};
  sluice_json_document *document = schemas();
  sluice_answer_options o = m3_options(document);
  unsigned random = 7;
  for (int i = 0; i < 3000; i++) {
    char text[2048];
    size_t length = 0;
    random = random * 1664525 + 1013904223;
    for (unsigned n = (random >> 16) % 16; n > 0; n--) {
      random = random * 1664525 + 1013904223;
      const char *piece = pieces[(random >> 12) % (sizeof pieces / sizeof pieces[0])];
      memcpy(text + length, piece, strlen(piece));
      length += strlen(piece);
    }
    o.tools = i % 2 ? SLUICE_TOOLS_M3 : SLUICE_TOOLS_M2;
    o.starts_in_reasoning = (random >> 20) % 3 == 0;
    char *whole = parse(text, length, &o, 0);
    for (unsigned seed = 1; seed < 5; seed++) {
      char *cut = parse(text, length, &o, seed + random);
      if (strcmp(cut, whole) != 0) fail_msg("%.*s\nwhole: %s\n cut: %s", (int)length, text, whole, cut);
      sluice_release(cut);
    }
    sluice_release(whole);
  }
  sluice_json_free(document);
  assert_int_equal(sluice_live_allocations(), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reasoning),       cmocka_unit_test(calls_of_m3), cmocka_unit_test(calls_of_m2),
      cmocka_unit_test(malformed_calls), cmocka_unit_test(any_pieces),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
