/* sluice-run chat: a conversation on a terminal, or line by line from a file. */
#include "runtime/tools/chat_model.h"
#include "runtime/tools/conversation.h"
#include "runtime/tools/logprobs.h"
#include "runtime/tools/options.h"
#include "runtime/tools/stream.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct chat_options {
  tool_model_options model;
  conversation_options conversation;
  const char *system, *tokenizer;
  uint64_t max_new, chunk, context;
  tool_sampling sampling;
  bool times, json;
} chat_options;

typedef struct chat {
  const chat_options *options;
  conversation conversation;
  chat_model model;
  sluice_tokenizer *tokenizer;
  bool terminal;
  /* The answer at hand. */
  sluice_answer_parser *parser;
  text_stream stream;                        /* its text up to a stop string */
  sluice_text reasoning, content, calls;     /* calls: JSON, separated by commas */
  sluice_text names;                         /* of the calls, each with a newline */
  sluice_text ids, logprobs, seconds, notes; /* JSON, separated by commas */
  sluice_answer_kind last;
  unsigned call_count, total_calls;
  uint64_t tokens;
} chat;

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal) {
  (void)signal;
  interrupted = 1;
}

/* Without SA_RESTART: waiting for a line ends as well. */
static void catch_interrupt(struct sigaction *before) {
  struct sigaction action = {.sa_handler = on_interrupt};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, before);
}

/* ---- The answer as it comes ---- */

static void print_words(chat *c, sluice_answer_kind kind, const char *text) {
  if (c->options->json) return;
  if (kind != c->last && c->last != SLUICE_ANSWER_NOTE) fputs(c->terminal ? "\033[0m\n" : "\n", stdout);
  if (kind == SLUICE_ANSWER_REASONING && kind != c->last && c->terminal) fputs("\033[2m", stdout);
  for (const char *at = text; *at; at++) /* what a model writes must not control the terminal */
    putchar(c->terminal && ((unsigned char)*at < 32 || *at == 127) && *at != '\n' && *at != '\t' ? '?' : *at);
  fflush(stdout);
  c->last = kind;
}

static sluice_status *on_event(void *user, const sluice_answer_event *event) {
  chat *c = user;
  switch (event->kind) {
  case SLUICE_ANSWER_NOTE:
    if (c->notes.length) sluice_text_append(&c->notes, ", ", 2);
    sluice_text_json_string(&c->notes, event->text);
    if (c->options->json) return NULL;
    fflush(stdout);
    fprintf(stderr, "%snote: %s\n", c->terminal ? "\n" : "", event->text);
    return NULL;
  case SLUICE_ANSWER_REASONING:
    sluice_text_append(&c->reasoning, event->text, event->length);
    break;
  case SLUICE_ANSWER_CONTENT:
    sluice_text_append(&c->content, event->text, event->length);
    break;
  case SLUICE_ANSWER_TOOL_CALL:
    sluice_text_printf(&c->calls, "%s{\"id\": \"call_%u\", \"type\": \"function\", \"function\": {\"name\": ",
                       c->call_count ? ", " : "", c->total_calls + c->call_count);
    sluice_text_json_string(&c->calls, event->name);
    sluice_text_printf(&c->calls, ", \"arguments\": %s}}", event->text);
    sluice_text_printf(&c->names, "%s\n", event->name);
    c->call_count++;
    print_words(c, SLUICE_ANSWER_TOOL_CALL, "call ");
    print_words(c, SLUICE_ANSWER_TOOL_CALL, event->name);
    print_words(c, SLUICE_ANSWER_TOOL_CALL, event->text);
    c->last = SLUICE_ANSWER_TOOL_CALL;
    return NULL;
  }
  print_words(c, event->kind, event->text);
  return NULL;
}

/* Gives the parser what the stream let through since it had printed `before` bytes. */
static sluice_status *feed_parser(chat *c, size_t before) {
  const size_t length = c->stream.printed - before;
  return length ? sluice_answer_feed(c->parser, c->stream.text.data + before, length) : NULL;
}

static void append_separator(sluice_text *list) {
  if (list->length) sluice_text_append(list, ", ", 2);
}

static sluice_status *on_token(void *user, int32_t token, const sluice_logprobs *logprobs, double seconds,
                               bool *out_more) {
  chat *c = user;
  const size_t before = c->stream.printed;
  append_separator(&c->ids);
  sluice_text_printf(&c->ids, "%d", token);
  if (c->tokens++) {
    append_separator(&c->seconds);
    sluice_text_json_double(&c->seconds, seconds);
  }
  append_separator(&c->logprobs);
  if (logprobs) logprobs_append(logprobs, token, &c->logprobs);
  SLUICE_TRY(text_stream_push(&c->stream, token));
  SLUICE_TRY(feed_parser(c, before));
  *out_more = !c->stream.stopped;
  return NULL;
}

static sluice_status *finish_answer(chat *c) {
  const size_t before = c->stream.printed;
  SLUICE_TRY(text_stream_finish(&c->stream));
  SLUICE_TRY(feed_parser(c, before));
  return sluice_answer_finish(c->parser);
}

/* The answer becomes the conversation's last message. */
static sluice_status *keep_answer(chat *c) {
  sluice_text more = {0};
  if (c->reasoning.length) {
    sluice_text_printf(&more, ", \"reasoning_content\": ");
    sluice_text_json_bytes(&more, c->reasoning.data, c->reasoning.length);
  }
  if (c->call_count) sluice_text_printf(&more, ", \"tool_calls\": [%s]", c->calls.data);
  const bool failed = more.failed || c->reasoning.failed || c->content.failed || c->calls.failed || c->names.failed;
  if (!failed)
    conversation_add(&c->conversation, "assistant", c->content.length ? c->content.data : "", c->content.length,
                     more.data);
  sluice_text_free(&more);
  return failed ? sluice_out_of_memory() : NULL;
}

static double seconds_per_token(const chat *c) {
  return c->tokens > 1 ? c->model.decode_seconds / (double)(c->tokens - 1) : 0;
}

static const char *text_of(const sluice_text *text) {
  return text->data && text->length ? text->data : "";
}

/* One line of JSON: the message, and what generate --json tells of its tokens and times. */
static sluice_status *print_json(const chat *c, size_t prompt, const char *reason) {
  sluice_text out = {0};
  const double each = seconds_per_token(c);
  sluice_text_printf(&out, "{\"role\": \"assistant\", \"content\": ");
  sluice_text_json_bytes(&out, text_of(&c->content), c->content.length);
  if (c->reasoning.length) {
    sluice_text_printf(&out, ", \"reasoning_content\": ");
    sluice_text_json_bytes(&out, c->reasoning.data, c->reasoning.length);
  }
  if (c->call_count) sluice_text_printf(&out, ", \"tool_calls\": [%s]", c->calls.data);
  sluice_text_printf(&out, ", \"notes\": [%s], \"ids\": [%s]", text_of(&c->notes), text_of(&c->ids));
  if (c->options->sampling.logprobs) sluice_text_printf(&out, ", \"logprobs\": [%s]", text_of(&c->logprobs));
  sluice_text_printf(&out, ", \"stopped\": \"%s\", \"prompt_tokens\": %zu, \"cached_tokens\": %zu", reason, prompt,
                     c->model.reused);
  sluice_text_printf(&out, ", \"token_seconds\": [%s], \"first_token_seconds\": ", text_of(&c->seconds));
  sluice_text_json_double(&out, c->model.prompt_seconds);
  sluice_text_printf(&out, ", \"decode_seconds\": ");
  sluice_text_json_double(&out, c->model.decode_seconds);
  sluice_text_printf(&out, ", \"tokens_per_second\": ");
  sluice_text_json_double(&out, each > 0 ? 1 / each : 0);
  sluice_text_printf(&out, "}\n");
  const bool failed = out.failed;
  if (!failed) fwrite(out.data, 1, out.length, stdout);
  fflush(stdout);
  sluice_text_free(&out);
  return failed ? sluice_out_of_memory() : NULL;
}

static sluice_status *print_end(const chat *c, size_t prompt, const char *reason) {
  if (strcmp(reason, "handler") == 0) reason = "stop_string";
  if (c->options->json) return print_json(c, prompt, reason);
  fputs(c->terminal ? "\033[0m\n" : "\n", stdout);
  fflush(stdout);
  if (!c->terminal && !c->options->times) return NULL;
  const double each = seconds_per_token(c);
  fprintf(stderr,
          "[%llu tokens after %zu, of which %zu were in the cache, %s; first token after %.2f s, then %.1f ms "
          "each, %.1f tokens/s]\n",
          (unsigned long long)c->tokens, prompt, c->model.reused, reason, c->model.prompt_seconds, 1e3 * each,
          each > 0 ? 1 / each : 0);
  return NULL;
}

/* How far the prompt is the same without the begin of an answer. */
static size_t stem_of(const tool_prompt *prompt, const tool_prompt *without) {
  size_t stem = 0;
  while (stem < prompt->count && stem < without->count && prompt->ids[stem] == without->ids[stem]) stem++;
  return stem;
}

static sluice_status *check_ids(const chat *c, const tool_prompt *prompt) {
  const uint32_t vocabulary = sluice_model_plan(c->model.model)->header->vocabulary;
  for (uint32_t i = 0; i < prompt->count; i++)
    if ((uint32_t)prompt->ids[i] >= vocabulary)
      return sluice_error(SLUICE_INVALID,
                          "the tokenizer gives the id %d, and the model has %u tokens: it is another model's tokenizer",
                          prompt->ids[i], vocabulary);
  return NULL;
}

static void begin_answer(chat *c) {
  sluice_text *const texts[] = {&c->reasoning, &c->content, &c->calls,    &c->names,
                                &c->ids,       &c->seconds, &c->logprobs, &c->notes};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) texts[i]->length = 0;
  text_stream_free(&c->stream);
  c->stream = (text_stream){.decoder = {.tokenizer = c->tokenizer},
                            .stops = c->options->sampling.stops.items,
                            .stop_count = c->options->sampling.stops.count};
  c->call_count = 0;
  c->tokens = 0;
  c->last = SLUICE_ANSWER_NOTE;
}

static sluice_status *run_answer(chat *c, const sluice_rendered *rendered, const tool_prompt *prompt, size_t stem) {
  const char *reason = "";
  sluice_answer_options options = sluice_answer_options_for(c->conversation.template, rendered->text, rendered->length);
  options.schemas = conversation_tools(&c->conversation);
  begin_answer(c);
  SLUICE_TRY(check_ids(c, prompt));
  SLUICE_TRY(sluice_answer_create(&options, on_event, c, &c->parser));
  interrupted = 0;
  sluice_status *status = chat_model_answer(&c->model, prompt->ids, prompt->count, stem, c->options->max_new,
                                            &interrupted, on_token, c, &reason);
  if (!status) status = finish_answer(c);
  sluice_answer_free(c->parser);
  c->parser = NULL;
  if (!status && (c->ids.failed || c->seconds.failed || c->logprobs.failed || c->notes.failed))
    status = sluice_out_of_memory();
  if (!status) status = print_end(c, prompt->count, reason);
  if (status) return status;
  interrupted = 0;
  return keep_answer(c);
}

static sluice_status *answer(chat *c) {
  sluice_rendered rendered = {0}, without = {0};
  tool_prompt prompt = {0}, base = {0};
  sluice_status *status = conversation_render(&c->conversation, true, &rendered);
  if (!status) status = conversation_encode(c->tokenizer, &rendered, &prompt);
  if (!status) status = conversation_render(&c->conversation, false, &without);
  if (!status) status = conversation_encode(c->tokenizer, &without, &base);
  if (!status) status = run_answer(c, &rendered, &prompt, stem_of(&prompt, &base));
  sluice_rendered_free(&rendered);
  sluice_rendered_free(&without);
  tool_prompt_free(&prompt);
  tool_prompt_free(&base);
  return status;
}

/* ---- Lines ---- */

/* A line, with those that follow a backslash at its end; without its newline. False at the end of the input. */
static bool read_line(chat *c, const char *prompt, sluice_text *line) {
  line->length = 0;
  for (;;) {
    if (c->terminal) fputs(line->length ? "... " : prompt, stdout);
    fflush(stdout);
    char *data = NULL;
    size_t capacity = 0;
    ssize_t length = getline(&data, &capacity, stdin);
    if (length < 0 && interrupted) { /* Ctrl-C gives up the line */
      interrupted = 0;
      clearerr(stdin);
      free(data);
      line->length = 0;
      fputs(c->terminal ? "\n(/exit or Ctrl-D leaves)\n" : "", stdout);
      continue;
    }
    if (length < 0) {
      free(data);
      return line->length > 0;
    }
    if (length && data[length - 1] == '\n') length--;
    const bool more = length && data[length - 1] == '\\';
    sluice_text_append(line, data, (size_t)(more ? length - 1 : length));
    if (more) sluice_text_append(line, "\n", 1);
    free(data);
    if (!more) return true;
  }
}

static sluice_status *save(const chat *c, const char *path) {
  sluice_text text = {0};
  sluice_pending_file file;
  if (!*path) return sluice_error(SLUICE_INVALID, "/save needs the name of a file");
  sluice_text_printf(&text, "[%s]\n", c->conversation.messages.length ? c->conversation.messages.data : "");
  sluice_status *status = text.failed ? sluice_out_of_memory() : sluice_pending_open(&file, path);
  if (!status) status = sluice_pending_close(&file, sluice_pending_write(&file, text.data, text.length));
  sluice_text_free(&text);
  if (!status) fprintf(stderr, "saved to %s\n", path);
  return status;
}

static void begin(chat *c) {
  c->conversation.messages.length = 0;
  if (c->options->system)
    conversation_add(&c->conversation, "system", c->options->system, strlen(c->options->system), NULL);
}

/* "/..."; `*out_end`: leave. */
static sluice_status *command(chat *c, const char *line, bool *out_end) {
  if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) {
    *out_end = true;
  } else if (strcmp(line, "/reset") == 0) {
    begin(c);
    chat_model_forget(&c->model);
  } else if (strncmp(line, "/save", 5) == 0 && (line[5] == ' ' || !line[5])) {
    return save(c, line + 5 + strspn(line + 5, " "));
  } else {
    fputs(strcmp(line, "/help") == 0 ? "" : "there is no such command\n", stderr);
    fputs("/reset       forget the conversation\n/save FILE   write the messages as JSON\n/exit        leave\n"
          "A line that ends with \\ goes on in the next one; Ctrl-C stops an answer.\n",
          stderr);
  }
  return NULL;
}

/* Asks for the results of the calls, one line each, and adds them. */
static bool ask_results(chat *c, sluice_text *line) {
  const char *name = c->names.data;
  for (unsigned i = 0; i < c->call_count; i++) {
    const size_t length = strcspn(name, "\n");
    sluice_text prompt = {0}, more = {0};
    sluice_text_printf(&prompt, "result of %.*s> ", (int)length, name);
    sluice_text_printf(&more, ", \"tool_call_id\": \"call_%u\", \"name\": ", c->total_calls + i);
    sluice_text_json_bytes(&more, name, length);
    const bool read = !prompt.failed && !more.failed && read_line(c, prompt.data, line);
    if (read) conversation_add(&c->conversation, "tool", line->length ? line->data : "", line->length, more.data);
    sluice_text_free(&prompt);
    sluice_text_free(&more);
    if (!read) return false;
    name += length + 1;
  }
  c->total_calls += c->call_count;
  return true;
}

/* Answers the last message, and the results of tools that an answer calls. What goes wrong with one message is said,
 * and that message forgotten. */
static sluice_status *reply(chat *c, sluice_text *line, bool *out_end) {
  const size_t before = c->conversation.messages.length;
  conversation_add(&c->conversation, "user", line->length ? line->data : "", line->length, NULL);
  sluice_status *status = answer(c);
  while (!status && c->call_count && !*out_end) {
    *out_end = !ask_results(c, line);
    if (!*out_end) status = answer(c);
  }
  const sluice_code code = sluice_status_code(status);
  if (!c->terminal || (code != SLUICE_INVALID && code != SLUICE_UNSUPPORTED)) return status;
  if (status) {
    sluice_status_print(status);
    sluice_status_free(status);
    c->conversation.messages.length = before;
  }
  return NULL;
}

static sluice_status *talk(chat *c) {
  sluice_text line = {0};
  sluice_status *status = NULL;
  begin(c);
  if (c->terminal) fputs("/help shows what there is besides talking.\n", stderr);
  for (bool end = false; !status && !end && read_line(c, "> ", &line);) {
    if (line.failed)
      status = sluice_out_of_memory();
    else if (line.length && line.data[0] == '/')
      status = command(c, line.data, &end);
    else if (line.length)
      status = reply(c, &line, &end);
    if (status && c->terminal && line.length && line.data[0] == '/') { /* a command that failed */
      sluice_status_print(status);
      sluice_status_free(status);
      status = NULL;
    }
  }
  sluice_text_free(&line);
  return status;
}

/* ---- Opening ---- */

static sluice_status *open_all(const char *file, const chat_options *options, chat *c) {
  c->options = options;
  c->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !options->json;
  c->model.chunk = (uint32_t)options->chunk;
  c->model.show_progress = isatty(STDERR_FILENO);
  c->model.base = c->model.live = -1;
  SLUICE_TRY(conversation_open(&options->conversation, &c->conversation));
  SLUICE_TRY(generation_config_read(options->model.weights, &c->model.config));
  c->model.options = options->sampling;
  tool_sampling_set_defaults(&c->model.options, &c->model.config);
  SLUICE_TRY(tool_tokenizer_open(options->tokenizer, options->model.weights, &c->tokenizer));
  SLUICE_TRY(tool_open_model(file, &options->model, &c->model.model));
  return chat_model_start(&c->model, options->context);
}

static void close_all(chat *c) {
  chat_model_close(&c->model);
  sluice_tokenizer_close(c->tokenizer);
  conversation_close(&c->conversation);
  text_stream_free(&c->stream);
  sluice_text_free(&c->ids);
  sluice_text_free(&c->seconds);
  sluice_text_free(&c->logprobs);
  sluice_text_free(&c->notes);
  sluice_text_free(&c->reasoning);
  sluice_text_free(&c->content);
  sluice_text_free(&c->calls);
  sluice_text_free(&c->names);
}

static sluice_status *check(chat_options *options) {
  if (!options->model.weights) return sluice_error(SLUICE_USAGE, "chat needs --weights; see --help");
  if (options->max_new < 1) return sluice_error(SLUICE_USAGE, "--max-new must be at least 1");
  if (options->chunk < 1 || options->chunk > 1u << 24)
    return sluice_error(SLUICE_USAGE, "--chunk must lie in 1 .. %u", 1u << 24);
  SLUICE_TRY(tool_sampling_check(&options->sampling, options->json));
  options->conversation.weights = options->model.weights;
  return NULL;
}

sluice_status *command_chat(int argc, char **argv) {
  chat_options o = {.max_new = UINT64_MAX, .chunk = 512, .sampling = TOOL_SAMPLING_NOT_GIVEN};
  const tool_option options[] = {
      {"--weights", TOOL_INPUT, &o.model.weights, "DIR", "the checkpoint, with its tokenizer and chat template"},
      {"--system", TOOL_TEXT, &o.system, "TEXT", "what the model is told first"},
      {"--tools", TOOL_INPUT, &o.conversation.tools, "FILE.json", "an array of tools that the model may call"},
      {"--thinking", TOOL_TEXT, &o.conversation.thinking, "on|off", "ask for reasoning, or for none"},
      {"--template-name", TOOL_TEXT, &o.conversation.name, "NAME", "which of several templates (default)"},
      {"--tokenizer", TOOL_INPUT, &o.tokenizer, "PATH", "the tokenizer's file or folder (the one beside the weights)"},
      {"--context", TOOL_COUNT, &o.context, "N", "tokens of the conversation (what fits, at most 32768)"},
      {"--max-new", TOOL_COUNT, &o.max_new, "N", "tokens of an answer at most (no limit)"},
      {"--chunk", TOOL_COUNT, &o.chunk, "N", "feed prompts in steps of N tokens (512)"},
      TOOL_SAMPLING_OPTIONS(o.sampling),
      {"--device", TOOL_TEXT, &o.model.device, "D", "host, cuda:N, hip:N (host)"},
      {"--trust", TOOL_INPUT, &o.model.trust, "KEY", "run the bundle only if it is signed with this key"},
      {"--threads", TOOL_COUNT, &o.model.threads, "N", "threads on the host (0: one for each core)"},
      {"--json", TOOL_FLAG, &o.json, NULL,
       "print each answer as a line of JSON: the message, ids, why it ended, times"},
      {"--times", TOOL_FLAG, &o.times, NULL, "say tokens and times after each answer, also without a terminal"},
  };
  const tool_command command_line = {
      "sluice-run chat FILE.sluice --weights DIR [options]",
      "A conversation: each line is a message, answers are printed as they come. /help shows commands.\n", options,
      sizeof options / sizeof options[0]};
  const char *file;
  bool help;
  SLUICE_TRY(tool_parse(&command_line, argc, argv, &file, &help));
  if (help) return NULL;
  SLUICE_TRY(check(&o));
  chat c = {0};
  struct sigaction before;
  sluice_status *status = open_all(file, &o, &c);
  if (!status) {
    catch_interrupt(&before);
    status = talk(&c);
    sigaction(SIGINT, &before, NULL);
  }
  close_all(&c);
  return status;
}
