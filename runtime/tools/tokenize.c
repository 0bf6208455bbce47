/* sluice-run tokenize: text to token ids, or ids to text. */
#include "runtime/tools/options.h"
#include "runtime/tools/prompt.h"

#include <stdio.h>
#include <string.h>

typedef struct tokenize_options {
  const char *weights, *tokenizer;
  bool ids, decode, special;
} tokenize_options;

/* A token a line: its id, and its bytes as a JSON string in which what is not UTF-8 is \ufffd. */
static sluice_status *print_tokens(const sluice_tokenizer *tokenizer, const tool_prompt *prompt) {
  sluice_text line = {0}, piece = {0};
  for (uint32_t i = 0; i < prompt->count; i++) {
    sluice_decoder decoder = {.tokenizer = tokenizer};
    line.length = piece.length = 0;
    sluice_decode(&decoder, &prompt->ids[i], 1, &piece);
    sluice_decode_finish(&decoder, &piece);
    sluice_text_printf(&line, "%d\t", prompt->ids[i]);
    sluice_text_json_bytes(&line, piece.data ? piece.data : "", piece.length);
    if (line.failed || piece.failed) break;
    puts(line.data);
  }
  const bool failed = line.failed || piece.failed;
  sluice_text_free(&line);
  sluice_text_free(&piece);
  return failed ? sluice_out_of_memory() : NULL;
}

static sluice_status *decode(const sluice_tokenizer *tokenizer) {
  tool_prompt prompt = {0};
  sluice_text text = {0};
  sluice_decoder decoder = {.tokenizer = tokenizer};
  sluice_status *status = tool_prompt_ids("-", &prompt);
  if (!status) {
    sluice_decode(&decoder, prompt.ids, prompt.count, &text);
    sluice_decode_finish(&decoder, &text);
    if (text.failed)
      status = sluice_out_of_memory();
    else if (text.length)
      fwrite(text.data, 1, text.length, stdout);
  }
  sluice_text_free(&text);
  tool_prompt_free(&prompt);
  return status;
}

static sluice_status *encode(const sluice_tokenizer *tokenizer, const tokenize_options *options) {
  tool_prompt prompt = {0};
  sluice_text text = {0};
  sluice_status *status = tool_read_file("-", "the text", &text);
  if (!status && text.length) status = tool_prompt_text(tokenizer, text.data, text.length, options->special, &prompt);
  if (!status && !options->ids) status = print_tokens(tokenizer, &prompt);
  if (!status && options->ids) {
    for (uint32_t i = 0; i < prompt.count; i++) printf("%s%d", i ? " " : "", prompt.ids[i]);
    putchar('\n');
  }
  sluice_text_free(&text);
  tool_prompt_free(&prompt);
  return status;
}

sluice_status *command_tokenize(int argc, char **argv) {
  tokenize_options o = {0};
  const tool_option options[] = {
      {"--weights", TOOL_INPUT, &o.weights, "DIR", "the checkpoint, with tokenizer.json or a tiktoken file in it"},
      {"--tokenizer", TOOL_INPUT, &o.tokenizer, "PATH", "the tokenizer's file or folder, instead"},
      {"--ids", TOOL_FLAG, &o.ids, NULL, "print the ids alone, on one line"},
      {"--special", TOOL_FLAG, &o.special, NULL, "added tokens written in the text are tokens, not text"},
      {"--decode", TOOL_FLAG, &o.decode, NULL, "read ids and print their text"},
  };
  const tool_command command = {"sluice-run tokenize --weights DIR [options] < TEXT",
                                "Prints the tokens of a text, an id and its piece of the text on each line.\n", options,
                                sizeof options / sizeof options[0]};
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, NULL, &help));
  if (help) return NULL;
  if (!o.weights && !o.tokenizer)
    return sluice_error(SLUICE_USAGE, "tokenize needs --weights or --tokenizer; see --help");
  if (o.decode && (o.ids || o.special))
    return sluice_error(SLUICE_USAGE, "--decode goes with neither --ids nor --special");
  sluice_tokenizer *tokenizer = NULL;
  SLUICE_TRY(tool_tokenizer_open(o.tokenizer, o.weights, &tokenizer));
  sluice_status *status = o.decode ? decode(tokenizer) : encode(tokenizer, &o);
  sluice_tokenizer_close(tokenizer);
  return status;
}
