/* The template interpreter: plain spans, limits, errors with their place, damaged templates, memory that runs short.
 * That it gives what Jinja2 gives is text/jinja_oracle.py's. */
#include "sluice/memory.h"
#include "sluice/template.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char messages[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"be [e~[ kind\"}, {\"role\": \"user\", \"content\": \"a <b> "
    "]~b]ai\"},"
    " {\"role\": \"assistant\", \"reasoning_content\": \"hm\", \"content\": \"ok\", \"tool_calls\": [{\"function\": "
    "{\"name\":"
    " \"f\", \"arguments\": {\"x\": 1, \"y\": [\"p\", {\"q\": null}]}}}]}, {\"role\": \"tool\", \"content\": "
    "\"done\"}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\","
    " \"properties\": {\"x\": {\"type\": \"integer\"}}}}}], \"add_generation_prompt\": true}";

static sluice_status *render(const char *text, size_t length, const sluice_json_document *variables,
                             const sluice_template_limits *limits, sluice_rendered *out) {
  sluice_template *template = NULL;
  *out = (sluice_rendered){0};
  SLUICE_TRY(sluice_template_parse(text, length, "t.jinja", &template));
  const sluice_template_variables given = {.object = sluice_json_root(variables), .plain = true};
  sluice_status *status = sluice_template_render(template, &given, 1, 0, limits, out);
  sluice_template_free(template);
  return status;
}

static sluice_json_document *parse(const char *text) {
  sluice_json_document *document = NULL;
  assert_null(sluice_json_parse(text, strlen(text), "messages", &document));
  return document;
}

/* The output with plain parts in braces. */
static void check_spans(const char *template, const char *variables, const char *expected) {
  sluice_json_document *document = parse(variables);
  sluice_rendered rendered;
  sluice_status *status = render(template, strlen(template), document, NULL, &rendered);
  if (status) sluice_status_print(status);
  assert_null(status);
  sluice_text marked = {0};
  size_t at = 0;
  for (size_t i = 0; i < rendered.plain_count; i++) {
    assert_true(rendered.plain[i].start >= at && rendered.plain[i].end > rendered.plain[i].start);
    assert_true(rendered.plain[i].end <= rendered.length);
    sluice_text_append(&marked, rendered.text + at, rendered.plain[i].start - at);
    sluice_text_printf(&marked, "{%.*s}", (int)(rendered.plain[i].end - rendered.plain[i].start),
                       rendered.text + rendered.plain[i].start);
    at = rendered.plain[i].end;
  }
  sluice_text_append(&marked, rendered.text + at, rendered.length - at);
  assert_string_equal(marked.data, expected);
  sluice_text_free(&marked);
  sluice_rendered_free(&rendered);
  sluice_json_free(document);
}

static void users_words_are_plain(void **state) {
  (void)state;
  const char *v = "{\"u\": \"A<b>c\", \"w\": \"ü x\", \"l\": [\"p\", \"q\"], \"n\": 5}";
  check_spans("<s>{{ u }}</s>", v, "<s>{A<b>c}</s>");
  check_spans("{{ '<' ~ u ~ '>' ~ w[1:] ~ u[::-1] }}", v, "<{A<b>c}>{ xc>b<A}");
  check_spans("{{ u + '|' + u | upper }}{{ u.split('<')[1] }}", v, "{A<b>c}|{A<B>Cb>c}");
  check_spans("{{ u | replace('<', '[') }}{{ 'x<y' | replace('<', u) }}", v, "{A}[{b>c}x{A<b>c}y");
  check_spans("{{ l | join(', ') }} {{ l | tojson }} {{ l }}", v, "{p}, {q} [\"{p}\", \"{q}\"] ['{p}', '{q}']");
  check_spans("{% macro m(x) %}<{{ x | trim }}>{% endmacro %}{% set t %}({{ m(u) }}){% endset %}{{ t }}{{ n }}", v,
              "(<{A<b>c}>)5");
  check_spans("{{ '%s-%s' % (u, 1) }}{{ '{}!'.format(w) }}{% filter lower %}Q{{ u }}{% endfilter %}", v,
              "{A<b>c}-1{ü x}!q{a<b>c}");
  check_spans("{{ u | e }}{{ l | map('capitalize') | join }}{{ w | indent(first=true) }}", v,
              "{A&lt;b&gt;cPQ}    {ü x}");
  check_spans("{% set ns = namespace(t='') %}{% for x in l %}{% set ns.t = ns.t ~ '<' ~ x %}{% endfor %}{{ ns.t }}", v,
              "<{p}<{q}");
}

static void check_error(const char *template, sluice_code code, const char *expected) {
  sluice_json_document *document = parse(messages);
  sluice_rendered rendered;
  sluice_status *status = render(template, strlen(template), document, NULL, &rendered);
  assert_non_null(status);
  assert_int_equal(sluice_status_code(status), code);
  char *text = sluice_status_format(status);
  if (!strstr(text, expected)) fail_msg("expected \"%s\" in:\n%s", expected, text);
  sluice_release(text);
  sluice_status_free(status);
  assert_null(rendered.text);
  sluice_json_free(document);
}

static void errors_have_a_place(void **state) {
  (void)state;
  check_error("a\n{{ 1 + }}", SLUICE_INVALID, "t.jinja:2:8: error: found \"}}\", expected an expression");
  check_error("{% if x %}", SLUICE_INVALID, "t.jinja:1:11: error: the template ends, but {% endif %} is missing");
  check_error("\r\n\r\n{% include 'x' %}", SLUICE_UNSUPPORTED,
              "t.jinja:3:4: error: the tag \"include\" is not supported");
  check_error("{{ 'é' }}\n  {{ nope.more }}", SLUICE_INVALID, "t.jinja:2:10: error: \"nope\" is undefined");
  check_error("{{ raise_exception('bad\nrole') }}", SLUICE_INVALID, "1:19: error: the template refuses this: bad role");
  check_error("{{ messages | frobnicate }}", SLUICE_UNSUPPORTED, "1:15: error: there is no filter \"frobnicate\" here");
  check_error("{{ messages[0].content.nope() }}", SLUICE_INVALID, "this str has no \"nope\"");
  check_error("{{ messages.append(1) }}", SLUICE_INVALID, "\"append\" of a list is not accessible to templates");
  check_error("\xff", SLUICE_INVALID, "1:1: error: this is not valid UTF-8");
}

static void limits_hold(void **state) {
  (void)state;
  check_error("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", SLUICE_INVALID,
              "the template takes more than 50000000 steps");
  check_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", SLUICE_INVALID, "calls and expressions in each other");
  check_error("{{ 'aaaaaaaaaa' * 100000000 }}", SLUICE_INVALID, "the template makes a text of more than 128 MB");
  check_error("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
              SLUICE_INVALID, "the template");
  check_error("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
              SLUICE_INVALID, "in each other");
  check_error("{{ 'x' | center(2000000000) }}", SLUICE_INVALID, "the template");
  char *deep = malloc(200001);
  memset(deep, '(', 100000);
  memset(deep + 100000, ')', 100000);
  memcpy(deep, "{{", 2);
  deep[200000] = 0;
  check_error(deep, SLUICE_INVALID, "brackets in each other");
  memset(deep + 2, '-', 100000);
  memcpy(deep + 100002, "1}}", 4);
  check_error(deep, SLUICE_INVALID, "levels in each other");
  free(deep);
}

/* Every damaged form of the templates either renders or is refused, and leaves nothing behind. */
static void try_damaged(const char *text, size_t length, const sluice_json_document *document) {
  const sluice_template_limits limits = {.steps = 20000, .memory = 4 << 20, .output = 1 << 20};
  sluice_rendered rendered;
  sluice_status *status = render(text, length, document, &limits, &rendered);
  sluice_status_free(status);
  sluice_rendered_free(&rendered);
}

static char *read_template(const char *name, size_t *out_length) {
  char path[512], *text = malloc(20000);
  snprintf(path, sizeof path, "%s/templates/%s", TEST_DATA, name);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  *out_length = fread(text, 1, 20000, file);
  fclose(file);
  return text;
}

static const char *const names[] = {"namespace.jinja", "parameters.jinja", "chatml.jinja", "headers.jinja",
                                    "schemas.jinja"};

static void damaged_templates(void **state) {
  (void)state;
  static const char pieces[] = "{}%#()[]|.,:'\"-~\\ \n0a";
  sluice_json_document *document = parse(messages);
  const size_t before = sluice_live_allocations();
  uint32_t random = 1;
  for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
    size_t length;
    char *text = read_template(names[n], &length);
    for (size_t cut = 0; cut < length; cut += 29) try_damaged(text, cut, document);
    for (int i = 0; i < 150; i++) {
      random = random * 1664525 + 1013904223;
      size_t at = (random >> 8) % length;
      char kept = text[at];
      text[at] = pieces[(random >> 4) % (sizeof pieces - 1)];
      try_damaged(text, length, document);
      text[at] = kept;
    }
    free(text);
  }
  assert_int_equal(sluice_live_allocations(), before);
  sluice_json_free(document);
}

static int fail_at(void *user, size_t bytes) {
  (void)bytes;
  return (*(long *)user)-- == 0;
}

static void memory_runs_short(void **state) {
  (void)state;
  sluice_json_document *document = parse(messages);
  const size_t before = sluice_live_allocations();
  size_t length;
  char *text = read_template("namespace.jinja", &length);
  bool done = false;
  for (long n = 0; !done; n++) {
    long left = n;
    sluice_rendered rendered;
    sluice_set_allocation_hook(fail_at, &left);
    sluice_status *status = render(text, length, document, NULL, &rendered);
    sluice_set_allocation_hook(NULL, NULL);
    done = left >= 0;
    if (!done) assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    if (done) assert_null(status);
    sluice_status_free(status);
    sluice_rendered_free(&rendered);
    assert_int_equal(sluice_live_allocations(), before);
    assert_true(n < 1000);
  }
  free(text);
  sluice_json_free(document);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(users_words_are_plain), cmocka_unit_test(errors_have_a_place), cmocka_unit_test(limits_hold),
      cmocka_unit_test(damaged_templates),     cmocka_unit_test(memory_runs_short),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
