/* A page about tuning records: time against floor for each kernel and shape. */
#ifndef COMPILER_TUNING_REPORT_H
#define COMPILER_TUNING_REPORT_H

#include "sluice/tuning.h"

/* Appends an HTML page that needs nothing else: a diagram (SVG) for each GPU and kernel, and a table of all records. */
void tuning_report_write(const sluice_tuning *tuning, sluice_text *out);

#endif
