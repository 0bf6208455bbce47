/* The page is deterministic: it holds what the records say, in their order. */
#include "compiler/tuning_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WIDTH = 640, HEIGHT = 260, LEFT = 64, RIGHT = 20, TOP = 16, BOTTOM = 40 };

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>sluice: tuning records</title>\n<style>\n"
    "body{font:15px/1.45 system-ui,sans-serif;max-width:76em;margin:2em auto;padding:0 1em}\n"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px;text-align:right;border-bottom:1px solid "
    "#ddd}\n"
    "td.l,th.l{text-align:left}svg{display:block;margin:.5em 0 1.5em}text{font:12px system-ui,sans-serif;fill:#444}\n"
    ".axis{stroke:#999}.tuned{stroke:#0a6ebd;fill:#0a6ebd}.default{stroke:#c65f16;fill:#c65f16}\n"
    ".floor{stroke:#777;fill:#777;stroke-dasharray:4 3}.line{fill:none;stroke-width:1.5}\n</style>\n"
    "<h1>Tuning records</h1>\n<p>Time of a call in microseconds over the tokens of the step: "
    "<span style=\"color:#0a6ebd\">tuned</span>, <span style=\"color:#c65f16\">the target's default</span>, "
    "<span style=\"color:#777\">floor (bytes and arithmetic at the machine's rates)</span>.</p>\n";

static void write_escaped(sluice_text *out, const char *text) {
  for (; *text; text++) {
    if (*text == '<' || *text == '>' || *text == '&' || *text == '"')
      sluice_text_printf(out, "&#%d;", *text);
    else
      sluice_text_append(out, text, 1);
  }
}

/* ---- Diagrams ---- */

static bool same_curve(const sluice_tuning_record *a, const sluice_tuning_record *b) {
  return strcmp(a->gpu, b->gpu) == 0 && a->processors == b->processors && strcmp(a->target, b->target) == 0 &&
         strcmp(a->kernel, b->kernel) == 0 && strcmp(a->shape, b->shape) == 0;
}

/* The member "tokens" of `at`, or the end of the range. */
static double tokens_of(const sluice_tuning_record *r) {
  static const char name[] = "\"tokens\": ";
  const char *found = strstr(r->at, name);
  double value = 0;
  if (found && sscanf(found + strlen(name), "%lf", &value) == 1 && value > 0) return value;
  return r->to > 0 ? (double)r->to : 1;
}

typedef enum curve_kind { CURVE_TUNED, CURVE_DEFAULT, CURVE_FLOOR, CURVES } curve_kind;

static double value_of(const sluice_tuning_record *r, curve_kind kind) {
  return kind == CURVE_TUNED ? r->median_us : kind == CURVE_DEFAULT ? r->default_us : r->floor_us;
}

/* Logarithmic in both directions. */
typedef struct scale {
  double least, most;
} scale;

static void extend(scale *s, double value) {
  if (!(value > 0)) return;
  if (!(s->least > 0) || value < s->least) s->least = value;
  if (value > s->most) s->most = value;
}

static double along(const scale *s, double value) {
  return s->most > s->least ? log(value / s->least) / log(s->most / s->least) : 0.5;
}

static double x_of(const scale *s, double value) {
  const double left = LEFT, width = WIDTH - LEFT - RIGHT;
  return left + along(s, value) * width;
}

static double y_of(const scale *s, double value) {
  const double bottom = HEIGHT - BOTTOM, height = HEIGHT - TOP - BOTTOM;
  return bottom - along(s, value) * height;
}

static void write_curve(const sluice_tuning_record *items, size_t count, curve_kind kind, const scale *x,
                        const scale *y, sluice_text *out) {
  static const char *const classes[CURVES] = {"tuned", "default", "floor"};
  sluice_text_printf(out, "<polyline class=\"line %s\" points=\"", classes[kind]);
  for (size_t i = 0; i < count; i++)
    if (value_of(&items[i], kind) > 0)
      sluice_text_printf(out, "%.1f,%.1f ", x_of(x, tokens_of(&items[i])), y_of(y, value_of(&items[i], kind)));
  sluice_text_printf(out, "\"/>\n");
  for (size_t i = 0; i < count && kind != CURVE_FLOOR; i++)
    if (value_of(&items[i], kind) > 0)
      sluice_text_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n", classes[kind],
                         x_of(x, tokens_of(&items[i])), y_of(y, value_of(&items[i], kind)));
}

/* A line and a number at each power of ten, or at both ends where there is none. */
static void write_marks(const scale *y, sluice_text *out) {
  bool some = false;
  const int last = (int)floor(log10(y->most));
  for (int power = (int)ceil(log10(y->least)); power <= last; power++) {
    const double value = pow(10, power);
    some = true;
    sluice_text_printf(out,
                       "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke-opacity=\".4\"/>"
                       "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g us</text>\n",
                       LEFT, WIDTH - RIGHT, y_of(y, value), y_of(y, value), LEFT - 6, y_of(y, value) + 4, value);
  }
  const double ends[] = {y->least, y->most};
  for (int i = 0; i < 2 && !some; i++)
    sluice_text_printf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.3g us</text>\n", LEFT - 6,
                       y_of(y, ends[i]) + 4, ends[i]);
}

static void write_diagram(const sluice_tuning_record *items, size_t count, sluice_text *out) {
  scale x = {0, 0}, y = {0, 0};
  for (size_t i = 0; i < count; i++) {
    extend(&x, tokens_of(&items[i]));
    for (int kind = 0; kind < CURVES; kind++) extend(&y, value_of(&items[i], (curve_kind)kind));
  }
  sluice_text_printf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", WIDTH, HEIGHT, WIDTH,
                     HEIGHT);
  sluice_text_printf(out, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>\n", LEFT, WIDTH - RIGHT,
                     HEIGHT - BOTTOM, HEIGHT - BOTTOM);
  write_marks(&y, out);
  for (size_t i = 0; i < count; i++)
    if (!i || tokens_of(&items[i]) > tokens_of(&items[i - 1]))
      sluice_text_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n",
                         x_of(&x, tokens_of(&items[i])), HEIGHT - BOTTOM + 18, tokens_of(&items[i]));
  for (int kind = CURVES; kind-- > 0;) write_curve(items, count, (curve_kind)kind, &x, &y, out);
  sluice_text_printf(out, "</svg>\n");
}

/* ---- The table ---- */

static void write_row(const sluice_tuning_record *r, sluice_text *out) {
  sluice_text_printf(out, "<tr><td class=\"l\">%lld to %lld</td><td class=\"l\">", (long long)r->from,
                     (long long)r->to);
  write_escaped(out, r->configuration);
  sluice_text_printf(out, "</td><td>%.2f</td><td>%.2f</td><td>%.2f</td><td>%.2f</td>", r->median_us, r->spread_us,
                     r->default_us, r->floor_us);
  if (r->default_us > 0)
    sluice_text_printf(out, "<td>%.3f</td>", r->default_us / r->median_us);
  else
    sluice_text_printf(out, "<td></td>");
  if (r->runner_up_us > 0)
    sluice_text_printf(out, "<td>%.2f</td>", r->runner_up_us);
  else
    sluice_text_printf(out, "<td></td>");
  sluice_text_printf(out, "<td class=\"l\">");
  write_escaped(out, r->date);
  sluice_text_printf(out, "</td></tr>\n");
}

static void write_kernel(const sluice_tuning_record *items, size_t count, sluice_text *out) {
  sluice_text_printf(out, "<h3>");
  write_escaped(out, items->kernel);
  sluice_text_printf(out, " ");
  write_escaped(out, items->shape);
  sluice_text_printf(out, "</h3>\n");
  write_diagram(items, count, out);
  sluice_text_printf(out, "<table><tr><th class=\"l\">tokens</th><th class=\"l\">configuration</th><th>us</th>"
                          "<th>spread</th><th>default us</th><th>floor us</th><th>gain</th><th>runner-up us</th>"
                          "<th class=\"l\">date</th></tr>\n");
  for (size_t i = 0; i < count; i++) write_row(&items[i], out);
  sluice_text_printf(out, "</table>\n");
}

static void write_gpu(const sluice_tuning_record *r, sluice_text *out) {
  sluice_text_printf(out, "<h2>");
  write_escaped(out, r->gpu);
  sluice_text_printf(out, ", ");
  write_escaped(out, r->target);
  sluice_text_printf(out, ", %lld processors</h2>\n", (long long)r->processors);
}

void tuning_report_write(const sluice_tuning *tuning, sluice_text *out) {
  sluice_text_append(out, head, sizeof head - 1);
  for (size_t i = 0, next; i < tuning->count; i = next) {
    const sluice_tuning_record *items = &tuning->items[i];
    const bool first = !i || strcmp(items[-1].gpu, items->gpu) != 0 || items[-1].processors != items->processors ||
                       strcmp(items[-1].target, items->target) != 0;
    if (first) write_gpu(items, out);
    for (next = i + 1; next < tuning->count && same_curve(items, &tuning->items[next]);) next++;
    write_kernel(items, next - i, out);
  }
  sluice_text_printf(out, "</html>\n");
}
