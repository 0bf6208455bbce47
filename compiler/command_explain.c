#include "compiler/commands.h"
#include "compiler/inspect.h"

#include <string.h>

#define AT(field) offsetof(explain_options, field)
static const option_description explain_command_options[] = {
    {"json", 0, OPTION_FLAG, NULL, AT(json), "print JSON", 0, false},
    {"tokens", 0, OPTION_INTEGER, "N", AT(tokens), "tokens of the step, all sequences together (one each)", 1, false},
    {"context", 0, OPTION_INTEGER, "N", AT(context), "tokens of each sequence after it (the longest context)", 1,
     false},
    {"sequences", 0, OPTION_INTEGER, "N", AT(sequences), "sequences in the step (1)", 1, false},
    {"product", 0, OPTION_TEXT, "NAME", AT(product),
     "whose data sheet floor times are made of: h100, mi300x, ... (the one compiled for)", 0, false},
    {"bandwidth", 0, OPTION_NUMBER, "GB/S", AT(bandwidth), "memory bandwidth, instead of the data sheet's", 0, false},
    {"flops", 0, OPTION_NUMBER, "TFLOP/S", AT(flops), "arithmetic rate, instead of the data sheet's", 0, false},
    {"parallel", 0, OPTION_TEXT, "tp=N|auto", AT(parallel),
     "of a model that is not compiled yet: N devices share it; auto compares all layouts", 0, false},
    {"devices", 0, OPTION_INTEGER, "N", AT(devices), "that --parallel auto may use (8)", 1, false},
    {"link-latency", 0, OPTION_NUMBER, "US", AT(link_latency),
     "of a short exchange between the devices, instead of what is known of the product", 0, false},
    {"link-rate", 0, OPTION_NUMBER, "GB/S", AT(link_rate), "of what joins the devices, likewise", 0, false},
};

/* Of a model that is not compiled yet. */
static sluice_status *explain_config(const explain_options *options, sluice_text *out) {
  model_config *config;
  sluice_bundle *bundle;
  sluice_status *refused = sluice_bundle_open(options->path, &bundle);
  if (!refused) {
    sluice_bundle_close(bundle);
    return sluice_error(SLUICE_USAGE, "%s is a bundle, which has its layout: leave out --parallel, or give a model",
                        options->path);
  }
  sluice_status_free(refused);
  SLUICE_TRY(model_config_read(options->path, command_warning, NULL, &config));
  sluice_status *status = explain_model(config, options, out);
  model_config_free(config);
  return status;
}

static sluice_status *run(const command_description *self, int argc, char **argv) {
  explain_options options = {0};
  bool help;
  SLUICE_TRY(options_parse(self, argc, argv, &options, &options.path, &help));
  if (help) {
    options_print_help(self, stdout);
    return NULL;
  }
  if (options.devices && !(options.parallel && strcmp(options.parallel, "auto") == 0))
    return sluice_error(SLUICE_USAGE, "--devices goes with --parallel auto alone");
  sluice_text text = {0};
  return command_print_text(&text,
                            options.parallel ? explain_config(&options, &text) : explain_bundle(&options, &text));
}

const command_description command_explain = {
    .name = "explain",
    .operand = "BUNDLE|MODEL_DIR|CONFIG",
    .summary = "Tells what each op of a step costs (bytes, FLOPs, floor time) and which fusions happened or why not.",
    .options = explain_command_options,
    .option_count = sizeof explain_command_options / sizeof explain_command_options[0],
    .run = run,
};
