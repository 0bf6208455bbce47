/* sluice keygen and sluice sign. */
#include "compiler/commands.h"
#include "compiler/compile.h"
#include "sluice/file.h"
#include "sluice/memory.h"
#include "sluice/signature.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

typedef struct sign_arguments {
  const char *key;
} sign_arguments;

static const option_description sign_options[] = {
    {"key", 0, OPTION_INPUT, "FILE", offsetof(sign_arguments, key),
     "private key, Ed25519 in PEM, as 'sluice keygen' or OpenSSL makes it", 0, true},
};

/* The sections of `bundle` but its signature, and a new one behind them; where a program holds it, in that program. */
static sluice_status *write_signed(const char *path, const sluice_bundle *bundle,
                                   const sluice_bundle_signature *signature) {
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  bundle_part parts[SLUICE_BUNDLE_MAX_SECTIONS + 1];
  size_t count = 0;
  for (uint32_t i = 0; i < header->section_count; i++) {
    const sluice_bundle_section *section = &header->sections[i];
    if (section->kind == SLUICE_SECTION_SIGNATURE) continue;
    parts[count++] =
        (bundle_part){section->kind, section->target, sluice_bundle_data(bundle, i), (size_t)section->length};
  }
  if (count == SLUICE_BUNDLE_MAX_SECTIONS)
    return sluice_error(SLUICE_UNSUPPORTED, "%s has %zu sections, which leaves no place for a signature", path, count);
  parts[count++] = (bundle_part){SLUICE_SECTION_SIGNATURE, "", signature, sizeof *signature};
  bundle_image image;
  void *program = NULL;
  size_t length;
  const size_t start = sluice_bundle_start(bundle);
  SLUICE_TRY(bundle_make_sections(parts, count, &image));
  sluice_status *status = start ? sluice_read_file(path, SIZE_MAX, &program, &length) : NULL;
  if (!status && start && length < start) status = sluice_error(SLUICE_IO, "%s: it became shorter meanwhile", path);
  if (!status)
    status = start ? program_write(path, program, start, &image) : file_write_atomic(path, image.data, image.length);
  sluice_release(program);
  bundle_image_free(&image);
  return status;
}

static sluice_status *run_sign(const command_description *self, int argc, char **argv) {
  sign_arguments arguments = {0};
  const char *path;
  bool help;
  SLUICE_TRY(options_parse(self, argc, argv, &arguments, &path, &help));
  if (help) {
    options_print_help(self, stdout);
    return NULL;
  }
  uint8_t seed[SLUICE_KEY_BYTES];
  SLUICE_TRY(sluice_private_key_read(arguments.key, seed));
  sluice_bundle *bundle;
  sluice_status *status = sluice_bundle_open(path, &bundle);
  if (!status) {
    sluice_bundle_signature signature;
    sluice_signed_message message;
    sluice_signed_message_of(bundle, &message);
    sluice_ed25519_public_key(seed, signature.key);
    sluice_ed25519_sign(seed, &message, sizeof message, signature.signature);
    status = write_signed(path, bundle, &signature);
    sluice_bundle_close(bundle);
  }
  explicit_bzero(seed, sizeof seed);
  return status;
}

static sluice_status *write_key(const char *path, unsigned mode, const sluice_key_text *text) {
  sluice_pending_file pending;
  SLUICE_TRY(sluice_pending_create(&pending, path, mode));
  return sluice_pending_close(&pending, sluice_pending_write(&pending, text->text, strlen(text->text)));
}

/* The private key last: where it is, its public key is too. */
static sluice_status *write_pair(const char *path, const char *public_path) {
  uint8_t seed[SLUICE_KEY_BYTES], key[SLUICE_KEY_BYTES];
  sluice_key_text text;
  sluice_pending_file private_file;
  SLUICE_TRY(sluice_pending_create(&private_file, path, 0600));
  if (getrandom(seed, sizeof seed, 0) != (ssize_t)sizeof seed)
    return sluice_pending_close(&private_file, sluice_error(SLUICE_IO, "no random numbers: %s", strerror(errno)));
  sluice_ed25519_public_key(seed, key);
  sluice_public_key_print(key, &text);
  sluice_status *status = write_key(public_path, 0644, &text);
  sluice_private_key_print(seed, &text);
  if (!status) status = sluice_pending_write(&private_file, text.text, strlen(text.text));
  explicit_bzero(seed, sizeof seed);
  explicit_bzero(&text, sizeof text);
  return sluice_pending_close(&private_file, status);
}

static sluice_status *run_keygen(const command_description *self, int argc, char **argv) {
  const char *path;
  bool help;
  SLUICE_TRY(options_parse(self, argc, argv, NULL, &path, &help));
  if (help) {
    options_print_help(self, stdout);
    return NULL;
  }
  char *public_path = sluice_format_string("%s.pub", path);
  if (!public_path) return sluice_out_of_memory();
  sluice_status *status = write_pair(path, public_path);
  sluice_release(public_path);
  return status;
}

const command_description command_sign = {
    .name = "sign",
    .operand = "BUNDLE",
    .summary = "Signs a bundle, or the one in a program, in place; 'sluice-run --trust' checks the signature before "
               "anything of it runs.",
    .options = sign_options,
    .option_count = sizeof sign_options / sizeof sign_options[0],
    .run = run_sign,
};

const command_description command_keygen = {
    .name = "keygen",
    .operand = "FILE",
    .summary = "Makes a pair of keys for signing bundles: FILE, which is to be kept secret, and FILE.pub.",
    .run = run_keygen,
};
