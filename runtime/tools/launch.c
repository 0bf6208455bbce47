/* sluice-run launch: a command on several ranks of this machine. */
#include "runtime/tools/children.h"
#include "runtime/tools/options.h"
#include "runtime/tools/ranks.h"

#include <stdio.h>
#include <string.h>

/* Where the command begins: behind the options before it. */
static int find_command(int argc, char **argv) {
  int i = 0;
  while (i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0 && strcmp(argv[i], "--help") != 0 &&
         strcmp(argv[i], "-h") != 0)
    i += strchr(argv[i], '=') ? 1 : 2;
  return i < argc ? i : argc;
}

sluice_status *command_launch(int argc, char **argv) {
  uint64_t ranks = 0;
  const tool_option options[] = {{"-n", TOOL_COUNT, &ranks, "N", "ranks: processes, each with a device of its own"}};
  const tool_command command = {
      "sluice-run launch -n N [--] COMMAND [options]",
      "Runs generate on N ranks of this machine, which share a model that was compiled with --parallel tp=N.\n"
      "Rank 0 prints; when one rank fails all end. Several machines: docs/cluster.md.\n",
      options, sizeof options / sizeof options[0]};
  int first = find_command(argc, argv);
  const bool asks_help = first < argc && (strcmp(argv[first], "--help") == 0 || strcmp(argv[first], "-h") == 0);
  bool help;
  SLUICE_TRY(tool_parse(&command, asks_help ? first + 1 : first, argv, NULL, &help));
  if (help) return NULL;
  if (first < argc && strcmp(argv[first], "--") == 0) first++;
  if (first >= argc) return sluice_error(SLUICE_USAGE, "no command to launch; usage: %s", command.usage);
  if (strcmp(argv[first], "generate") != 0)
    return sluice_error(SLUICE_USAGE, "launch runs generate; \"%.60s\" is not for several ranks yet", argv[first]);
  if (ranks < 1 || ranks > SLUICE_MOST_RANKS)
    return sluice_error(SLUICE_USAGE, "-n must lie in 1 .. %d", SLUICE_MOST_RANKS);
  tool_child child;
  bool is_child;
  int code;
  SLUICE_TRY(tool_children_run((uint32_t)ranks, &child, &is_child, &code));
  if (!is_child) {
    tool_set_exit_code(code);
    return NULL;
  }
  SLUICE_TRY(tool_ranks_launched(&child));
  return tool_dispatch(argc - first + 1, argv + first - 1);
}
