/* sluice-run: runs bundles. */
#include "runtime/tools/options.h"
#include "runtime/tools/own_bundle.h"
#include "sluice/program.h"

#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  sluice_status *(*run)(int argc, char **argv);
  const char *summary;
} commands[] = {
    {"generate", command_generate, "continue a prompt"},
    {"chat", command_chat, "talk with a model"},
    {"verify", command_verify, "compare with a golden file"},
    {"bench", command_bench, "time steps and kernels"},
    {"tune", command_tune, "find the fastest configuration of each kernel"},
    {"calibrate", command_calibrate, "measure the rates of this machine"},
    {"memory", command_memory, "print the memory plan"},
    {"tokenize", command_tokenize, "print the tokens of a text"},
    {"template", command_template, "turn messages into a prompt"},
    {"launch", command_launch, "run a command on several ranks"},
};

#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void print_help(FILE *to) {
  const char *own = own_bundle_program();
  fprintf(to, "usage: %s COMMAND%s [options]\n\n%scommands:\n", own ? own : "sluice-run", own ? "" : " FILE.sluice",
          own ? "sluice-run with a bundle inside, which the commands use.\n\n" : "");
  for (size_t i = 0; i < COMMAND_COUNT; i++) fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
  fprintf(to,
          "\n\"%s COMMAND --help\" describes a command. Exit codes: 0 success, 1 bad input or failed check, 2 wrong\n"
          "usage, 70 a bug in sluice-run.\n",
          own ? own : "sluice-run");
}

static int exit_code;

void tool_set_exit_code(int code) {
  exit_code = code;
}

sluice_status *tool_dispatch(int argc, char **argv) {
  if (argc < 2) return sluice_error(SLUICE_USAGE, "no command given; see sluice-run --help");
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    print_help(stdout);
    return NULL;
  }
  if (strcmp(argv[1], "--version") == 0) {
    printf("sluice-run %s\n", sluice_version());
    return NULL;
  }
  for (size_t i = 0; i < COMMAND_COUNT; i++)
    if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 2, argv + 2);
  return sluice_error(SLUICE_USAGE, "unknown command \"%s\"; see sluice-run --help", argv[1]);
}

int main(int argc, char **argv) {
  sluice_status *status = sluice_program_begin();
  own_bundle_begin(argv[0]);
  if (!status) status = tool_dispatch(argc, argv);
  const int code = sluice_program_end(status);
  return code ? code : exit_code;
}
