/* sluice: model configurations to bundles. */
#include "backends/common/short_memory.h"
#include "compiler/commands.h"
#include "compiler/suggest.h"
#include "sluice/program.h"
#include "sluice/runtime.h"

#include <llvm-c/Core.h>
#include <string.h>

static const command_description *const commands[] = {&command_compile, &command_synth,   &command_opt,
                                                      &command_inspect, &command_explain, &command_tune,
                                                      &command_tuning,  &command_keygen,  &command_sign};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out) {
  fprintf(out, "Usage: sluice COMMAND [OPTIONS] ...\n\n"
               "Compiles MiniMax-M3 model configurations to bundles, which sluice-run runs.\n\nCommands:\n");
  for (int i = 0; i < COMMAND_COUNT; i++) fprintf(out, "  %-10s%s\n", commands[i]->name, commands[i]->summary);
  fprintf(out, "\n'sluice COMMAND --help' lists a command's options; 'sluice --version' tells the version.\n"
               "Exit codes: 0 ok, 1 bad input or failed check, 2 wrong usage, 70 a bug of sluice.\n");
}

static void print_version(void) {
  unsigned major, minor, patch;
  LLVMGetVersion(&major, &minor, &patch);
  printf("sluice %s (LLVM %u.%u.%u)\n", sluice_version(), major, minor, patch);
}

static sluice_status *run(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return sluice_error(SLUICE_USAGE, "a command is missing");
  }
  const char *name = argv[1];
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
    print_help(stdout);
    return NULL;
  }
  if (strcmp(name, "--version") == 0) {
    print_version();
    return NULL;
  }
  const char *names[COMMAND_COUNT];
  for (int i = 0; i < COMMAND_COUNT; i++) {
    names[i] = commands[i]->name;
    if (strcmp(name, names[i]) == 0) return commands[i]->run(commands[i], argc - 2, argv + 2);
  }
  const char *near = suggest_nearest(name, names, COMMAND_COUNT, sizeof names[0]);
  if (near) return sluice_error(SLUICE_USAGE, "unknown command '%s', did you mean '%s'?", name, near);
  return sluice_error(SLUICE_USAGE, "unknown command '%s', see 'sluice --help'", name);
}

int main(int argc, char **argv) {
  short_memory_react(short_memory_exit);
  sluice_status *status = sluice_program_begin();
  if (!status) status = run(argc, argv);
  return sluice_program_end(status);
}
