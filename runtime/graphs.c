#include "runtime/graphs.h"

#include <string.h>

sluice_device_graph *sluice_graphs_find(sluice_graphs *graphs, const uint64_t extents[SLUICE_SIZE_COUNT]) {
  for (int i = 0; i < SLUICE_GRAPH_CAPACITY; i++) {
    sluice_graph_entry *entry = &graphs->entries[i];
    if (!entry->graph || memcmp(entry->extents, extents, sizeof entry->extents) != 0) continue;
    entry->last_use = ++graphs->uses;
    return entry->graph;
  }
  return NULL;
}

void sluice_graphs_keep(sluice_graphs *graphs, sluice_device *device, const uint64_t extents[SLUICE_SIZE_COUNT],
                        sluice_device_graph *graph) {
  sluice_graph_entry *place = &graphs->entries[0];
  for (int i = 1; i < SLUICE_GRAPH_CAPACITY; i++)
    if (graphs->entries[i].last_use < place->last_use) place = &graphs->entries[i];
  if (place->graph) device->driver->graph_release(device, place->graph);
  place->graph = graph;
  place->last_use = ++graphs->uses;
  memcpy(place->extents, extents, sizeof place->extents);
}

void sluice_graphs_clear(sluice_graphs *graphs, sluice_device *device) {
  for (int i = 0; i < SLUICE_GRAPH_CAPACITY; i++)
    if (graphs->entries[i].graph) device->driver->graph_release(device, graphs->entries[i].graph);
  *graphs = (sluice_graphs){0};
}
