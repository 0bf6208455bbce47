/* The recorded decode steps of a session: a few graphs, found by the extents of the step that they were recorded for.
 * With the session's memory blocks, the extents decide every address, grid and byte count of a step; so all graphs go
 * when a block moves.
 */
#ifndef SLUICE_RUNTIME_GRAPHS_H
#define SLUICE_RUNTIME_GRAPHS_H

#include "runtime/device.h"

#define SLUICE_GRAPH_CAPACITY 16

typedef struct sluice_graph_entry {
  sluice_device_graph *graph; /* NULL: free */
  uint64_t extents[SLUICE_SIZE_COUNT];
  uint64_t last_use;
} sluice_graph_entry;

typedef struct sluice_graphs { /* zero: empty */
  sluice_graph_entry entries[SLUICE_GRAPH_CAPACITY];
  uint64_t uses;
} sluice_graphs;

/* The graph recorded for `extents`, NULL when there is none. */
sluice_device_graph *sluice_graphs_find(sluice_graphs *graphs, const uint64_t extents[SLUICE_SIZE_COUNT]);

/* Keeps `graph` for `extents`; when there is no room, the one that was not used for longest goes. */
void sluice_graphs_keep(sluice_graphs *graphs, sluice_device *device, const uint64_t extents[SLUICE_SIZE_COUNT],
                        sluice_device_graph *graph);

/* Releases all graphs. */
void sluice_graphs_clear(sluice_graphs *graphs, sluice_device *device);

#endif
