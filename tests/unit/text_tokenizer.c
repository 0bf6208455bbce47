/* Tokenizers: known ids, spans, invalid UTF-8, streaming, normalisation, refusals by name, cost of long words. The
 * comparison with the `tokenizers` library is tests/oracle/compare_tokenizers.py. */
#include "runtime/text/nfc.h"
#include "runtime/text/utf8.h"
#include "sluice/memory.h"
#include "sluice/tokenizer.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static sluice_tokenizer *small; /* examples/tokenizer */
static sluice_encoder *encoder;

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static int open_small(void **state) {
  (void)state;
  must(sluice_tokenizer_open(TEST_DATA "/../examples/tokenizer", &small));
  must(sluice_encoder_create(small, &encoder));
  return 0;
}

static int close_small(void **state) {
  (void)state;
  sluice_encoder_free(encoder);
  sluice_tokenizer_close(small);
  return sluice_live_allocations() != 0;
}

static void expect_ids(const char *text, size_t length, const sluice_encode_options *options, const int32_t *wanted,
                       size_t wanted_count) {
  const int32_t *ids;
  size_t count;
  must(sluice_encode(encoder, text, length, options, &ids, &count));
  assert_int_equal(count, wanted_count);
  assert_memory_equal(ids, wanted, count * sizeof *ids);
}

#define EXPECT(text, options, ...)                                                                                     \
  do {                                                                                                                 \
    const int32_t wanted_[] = {__VA_ARGS__};                                                                           \
    expect_ids(text, sizeof(text) - 1, options, wanted_, sizeof wanted_ / sizeof *wanted_);                            \
  } while (0)

static const sluice_encode_options all = {.added = SLUICE_ADDED_ALL}, plain = {.added = SLUICE_ADDED_PLAIN};

static void known_ids(void **state) {
  (void)state;
  EXPECT("Hello, world! The compiler's tokens.", NULL, 39, 271, 281, 11, 274, 270, 75, 67, 0, 449, 258, 416, 79, 341,
         261, 437, 394, 13);
  EXPECT("    x = 123456;\r\n", NULL, 268, 220, 398, 418, 220, 16, 17, 18, 19, 20, 21, 26, 201, 198);
  EXPECT("\xE6\x97\xA5\xE6\x9C\xAC e\xCC\x81", NULL, 162, 245, 98, 162, 250, 105, 324, 136, 223);
  const int32_t *ids;
  size_t count;
  must(sluice_encode(encoder, "", 0, NULL, &ids, &count));
  assert_int_equal(count, 0);
}

static void added_tokens_are_text_unless_asked(void **state) {
  (void)state;
  EXPECT("]~b]user\nhi[e~[\n", &all, 501, 482, 261, 198, 71, 72, 502, 198);
  const int32_t *ids;
  size_t count;
  must(sluice_encode(encoder, "]~b]<think>", 11, NULL, &ids, &count));
  for (size_t i = 0; i < count; i++) assert_false(sluice_tokenizer_is_added(small, ids[i]));
  must(sluice_encode(encoder, "]~b]<think>", 11, &plain, &ids, &count));
  assert_int_equal(ids[count - 1], sluice_tokenizer_added_id(small, "<think>"));
  for (size_t i = 0; i < count; i++) assert_false(sluice_tokenizer_is_special(small, ids[i]));
}

/* A template's text around a user's words, which spell a special token and half of one at the edge. */
static void plain_parts(void **state) {
  (void)state;
  static const char text[] = "]~b]user\n[e~[ ]~[e~[";
  const sluice_span user = {9, 16}; /* "[e~[ ]~" */
  sluice_encode_options options = {.added = SLUICE_ADDED_ALL, .plain = &user, .plain_count = 1};
  const int32_t *ids;
  size_t count;
  must(sluice_encode(encoder, text, sizeof text - 1, &options, &ids, &count));
  assert_int_equal(ids[0], 501);
  assert_int_equal(ids[count - 1], 502);
  for (size_t i = 1; i + 1 < count; i++) assert_false(sluice_tokenizer_is_added(small, ids[i]));
  /* A token that is half in the user's part is text. */
  const sluice_span half = {0, 2};
  options.plain = &half;
  must(sluice_encode(encoder, "]~b]", 4, &options, &ids, &count));
  assert_false(sluice_tokenizer_is_added(small, ids[0]));
  /* Parts move with text that is made valid: the bad byte becomes three. */
  const sluice_span behind[] = {{0, 1}, {5, 9}};
  options.plain = behind;
  options.plain_count = 2;
  must(sluice_encode(encoder, "\xFF[e~[[e~[[e~[", 13, &options, &ids, &count));
  assert_int_equal(ids[count - 1], 502);
  size_t added = 0;
  for (size_t i = 0; i < count; i++) added += sluice_tokenizer_is_added(small, ids[i]);
  assert_int_equal(added, 2);
  const sluice_span wrong = {3, 99};
  options.plain = &wrong;
  options.plain_count = 1;
  sluice_status *status = sluice_encode(encoder, "abc", 3, &options, &ids, &count);
  assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
  sluice_status_free(status);
}

static void decode_all(const int32_t *ids, size_t count, sluice_text *text) {
  sluice_decoder decoder = {.tokenizer = small};
  text->length = 0;
  sluice_decode(&decoder, ids, count, text);
  sluice_decode_finish(&decoder, text);
}

/* Each longest ill-formed part is one U+FFFD, in both directions. */
static void invalid_utf8(void **state) {
  (void)state;
  static const struct {
    const char *bytes, *text;
  } cases[] = {
      {"a\xFFz", "a\xEF\xBF\xBDz"},
      {"\xE6\x97", "\xEF\xBF\xBD"},
      {"\xE6\x97z", "\xEF\xBF\xBDz"},
      {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xF0\x9F\x98", "\xEF\xBF\xBD"},
      {"\xF0\x9F\xE6\x97\xA5", "\xEF\xBF\xBD\xE6\x97\xA5"},
  };
  sluice_text text = {0};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int32_t *ids;
    size_t count;
    must(sluice_encode(encoder, cases[i].bytes, strlen(cases[i].bytes), NULL, &ids, &count));
    decode_all(ids, count, &text);
    assert_string_equal(text.data, cases[i].text);
    /* The same bytes as single-byte tokens: in this vocabulary each byte has one. */
    int32_t bytes[8];
    size_t length = strlen(cases[i].bytes), found = 0;
    for (size_t b = 0; b < length; b++)
      for (int32_t id = 0; id < sluice_tokenizer_size(small); id++) {
        size_t size;
        const char *token = sluice_tokenizer_bytes(small, id, &size);
        if (token && size == 1 && token[0] == cases[i].bytes[b]) bytes[found++] = id;
      }
    assert_int_equal(found, length);
    decode_all(bytes, found, &text);
    assert_string_equal(text.data, cases[i].text);
  }
  sluice_text_free(&text);
}

/* Random ids, one after another: every prefix is valid UTF-8, and the end is what decoding at once gives. */
static void streaming(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (int round = 0; round < 300; round++) {
    int32_t ids[64];
    sluice_text whole = {0}, streamed = {0};
    for (size_t i = 0; i < 64; i++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      ids[i] = (int32_t)(seed >> 33) % 560 - 8; /* some are no token */
    }
    decode_all(ids, 64, &whole);
    sluice_decoder decoder = {.tokenizer = small};
    for (size_t i = 0; i < 64; i++) {
      sluice_decode(&decoder, ids + i, 1, &streamed);
      assert_int_equal(utf8_valid_prefix((const unsigned char *)streamed.data, streamed.length), streamed.length);
      assert_true(streamed.length <= whole.length);
    }
    sluice_decode_finish(&decoder, &streamed);
    assert_int_equal(streamed.length, whole.length);
    assert_memory_equal(streamed.data, whole.data, whole.length);
    sluice_text_free(&whole);
    sluice_text_free(&streamed);
  }
  sluice_decoder skipping = {.tokenizer = small, .skip_special = true};
  sluice_text text = {0};
  const int32_t ids[] = {501, 39, 502, 506};
  sluice_decode(&skipping, ids, 4, &text);
  assert_string_equal(text.data, "H<think>");
  sluice_text_free(&text);
}

static void normalisation(void **state) {
  (void)state;
  static const struct {
    const char *text, *nfc;
  } cases[] = {
      {"plain", "plain"},
      {"e\xCC\x81", "\xC3\xA9"},
      {"x e\xCC\x81 y", "x \xC3\xA9 y"},
      {"\xCC\x81"
       "e",
       "\xCC\x81"
       "e"},
      {"a\xCC\x82\xCC\xA3", "\xE1\xBA\xAD"},                    /* marks are ordered, then composed */
      {"\xE2\x84\xAB", "\xC3\x85"},                             /* Angstrom sign */
      {"\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"}, /* Hangul jamo */
      {"\xE0\xA4\x95\xE0\xA4\xBC", "\xE0\xA4\x95\xE0\xA4\xBC"}, /* excluded from composition */
      {"a\xCC\xB4\xCC\x81", "\xC3\xA1\xCC\xB4"},                /* joins over a mark of another class */
      {"a\xCC\x80\xCC\x81", "\xC3\xA0\xCC\x81"},                /* blocked by one of its own */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    sluice_text out = {0};
    nfc_append(cases[i].text, strlen(cases[i].text), &out);
    assert_string_equal(out.data, cases[i].nfc);
    sluice_text_free(&out);
  }
  /* A long run of marks, in falling order of their classes, is put in order. */
  sluice_text marks = {0}, out = {0};
  sluice_text_append(&marks, "q", 1);
  for (int i = 0; i < 20000; i++) sluice_text_append(&marks, i % 2 ? "\xCC\xA3" : "\xCC\x81", 2);
  nfc_append(marks.data, marks.length, &out);
  assert_int_equal(out.length, marks.length);
  assert_memory_equal(out.data + 1, "\xCC\xA3\xCC\xA3", 4);
  assert_memory_equal(out.data + out.length - 4, "\xCC\x81\xCC\x81", 4);
  sluice_text_free(&marks);
  sluice_text_free(&out);
}

/* ---- Files ---- */

/* A tokenizer.json whose vocabulary is the 256 bytes, with places to put other parts. */
static void byte_file(sluice_text *out, const char *normalizer, const char *pre, const char *post, const char *decoder,
                      const char *model, const char *added, const char *rest) {
  sluice_text_printf(out,
                     "{\"version\": \"1.0\", \"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, "
                     "\"post_processor\": %s, \"decoder\": %s, %s \"model\": {%s, \"vocab\": {",
                     added, normalizer, pre, post, decoder, rest, model);
  for (unsigned byte = 0, other = 0; byte < 256; byte++) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    unsigned char point[5] = "";
    utf8_write(itself ? byte : 256 + other++, point);
    sluice_text_printf(out, "%s", byte ? ", " : "");
    sluice_text_json_string(out, (const char *)point);
    sluice_text_printf(out, ": %u", byte);
  }
  sluice_text_printf(out, "}}}");
}

#define LEVEL "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}"
#define DECODER "{\"type\": \"ByteLevel\"}"
#define BPE "\"type\": \"BPE\", \"merges\": []"

static void accept(const char *normalizer, const char *pre, const char *post, const char *model, const char *added) {
  sluice_text file = {0};
  sluice_tokenizer *t = NULL;
  byte_file(&file, normalizer, pre, post, DECODER, model, added, "");
  must(sluice_tokenizer_parse_json(file.data, file.length, "a.json", &t));
  sluice_tokenizer_close(t);
  sluice_text_free(&file);
}

static void refuse(sluice_code code, const char *word, const char *normalizer, const char *pre, const char *post,
                   const char *decoder, const char *model, const char *added, const char *rest) {
  sluice_text file = {0};
  sluice_tokenizer *t = NULL;
  byte_file(&file, normalizer, pre, post, decoder, model, added, rest);
  sluice_status *status = sluice_tokenizer_parse_json(file.data, file.length, "a.json", &t);
  if (!status) fail_msg("accepted, expected a refusal with '%s'", word);
  char *report = sluice_status_format(status);
  if (sluice_status_code(status) != code || !strstr(report, word) || !strstr(report, "a.json"))
    fail_msg("code %d, expected %d and '%s': %s", sluice_status_code(status), code, word, report);
  sluice_release(report);
  sluice_status_free(status);
  sluice_text_free(&file);
}

#define SPLIT(expression)                                                                                              \
  "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" expression          \
  "\"}, \"behavior\": \"Isolated\", \"invert\": false}, " LEVEL "]}"
#define ADDED(content, more) "{\"id\": 300, \"content\": \"" content "\", \"special\": true" more "}"

/* What byte_file's alphabet writes for a byte. */
static void put_byte(sluice_text *out, unsigned byte) {
  static unsigned points[256];
  for (unsigned b = 0, other = 0; !points[255] && b < 256; b++) {
    const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    points[b] = itself ? b : 256 + other++;
  }
  unsigned char point[5] = "";
  utf8_write(points[byte], point);
  if (points[byte] == '"' || points[byte] == '\\') sluice_text_append(out, "\\", 1);
  sluice_text_append(out, (const char *)point, strlen((const char *)point));
}

/* The bytes of token `id` of the large vocabulary: all of one and of two, many of three. */
static void put_token(sluice_text *out, unsigned id) {
  unsigned bytes[3], count = id < 256 ? 1 : id < 256 + 65536 ? 2 : 3;
  unsigned rest = id - (count == 1 ? 0 : count == 2 ? 256 : 256 + 65536);
  for (unsigned i = count; i-- > 0; rest >>= 8) bytes[i] = rest & 255;
  if (count == 3) bytes[0] += 32;
  for (unsigned i = 0; i < count; i++) put_byte(out, bytes[i]);
}

enum { LARGE = 200000 };

/* A vocabulary of 200,000 tokens, with a merge for each but the bytes. */
static void large_file(sluice_text *out, bool merges_first) {
  sluice_text vocab = {0}, merges = {0};
  for (unsigned id = 0; id < LARGE; id++) {
    sluice_text_append(&vocab, id ? ", \"" : "\"", id ? 3 : 1);
    put_token(&vocab, id);
    sluice_text_printf(&vocab, "\": %u", id);
    if (id < 256) continue;
    const unsigned rest = id - (id < 256 + 65536 ? 256 : 256 + 65536);
    sluice_text_append(&merges, id > 256 ? ", [\"" : "[\"", id > 256 ? 4 : 2);
    put_token(&merges, id < 256 + 65536 ? rest >> 8 : 256 + (rest >> 8) + 32 * 256);
    sluice_text_append(&merges, "\", \"", 4);
    put_token(&merges, rest & 255);
    sluice_text_append(&merges, "\"]", 2);
  }
  const char *first = merges_first ? "merges" : "vocab";
  sluice_text_printf(out,
                     "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": " LEVEL
                     ", \"post_processor\": null, \"decoder\": " DECODER
                     ", \"model\": {\"type\": \"BPE\", \"%s\": %s%s%s, "
                     "\"%s\": %s%s%s}}",
                     first, merges_first ? "[" : "{", merges_first ? merges.data : vocab.data, merges_first ? "]" : "}",
                     merges_first ? "vocab" : "merges", merges_first ? "{" : "[",
                     merges_first ? vocab.data : merges.data, merges_first ? "}" : "]");
  sluice_text_free(&vocab);
  sluice_text_free(&merges);
}

/* The issue asks for 0.15 s; an idle machine takes 0.07. What is held to here has room for a loaded one. */
static void a_large_file_opens_fast(void **state) {
  (void)state;
  for (int merges_first = 0; merges_first < 2; merges_first++) {
    sluice_text file = {0};
    large_file(&file, merges_first);
    sluice_tokenizer *t;
    sluice_encoder *e;
    const clock_t start = clock();
    must(sluice_tokenizer_parse_json(file.data, file.length, "large.json", &t));
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    if (!merges_first && seconds > 0.4) fail_msg("opening 200,000 tokens took %.3f s of CPU", seconds);
#endif
    printf("200,000 tokens opened in %.3f s of CPU\n", seconds);
    assert_int_equal(sluice_tokenizer_size(t), LARGE);
    must(sluice_encoder_create(t, &e));
    const int32_t *ids;
    size_t count;
    must(sluice_encode(e, " abab", 5, NULL, &ids, &count)); /* " a", "ab" at the end, " ab": in the order of ranks */
    assert_int_equal(count, 2);
    assert_int_equal(ids[0], 256 + 65536 + 'a' * 256 + 'b');
    assert_int_equal(ids[1], 256 + 'a' * 256 + 'b');
    sluice_encoder_free(e);
    sluice_tokenizer_close(t);
    sluice_text_free(&file);
  }
}

static void files(void **state) {
  (void)state;
  accept("null", LEVEL, "null", BPE, "");
  accept("{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}", SPLIT("a|[^b]+|\\\\s\\\\p{Lu}"), DECODER,
         BPE ", \"dropout\": null, \"unk_token\": \"x\", \"byte_fallback\": false", ADDED("<x>", ""));
  const sluice_code bad = SLUICE_INVALID, undone = SLUICE_UNSUPPORTED;
  refuse(undone, "NFKC", "{\"type\": \"NFKC\"}", LEVEL, "null", DECODER, BPE, "", "");
  refuse(undone, "Prepend", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\"}]}", LEVEL, "null",
         DECODER, BPE, "", "");
  refuse(undone, "Metaspace", "null", "{\"type\": \"Metaspace\"}", "null", DECODER, BPE, "", "");
  refuse(undone, "no pre-tokenizer", "null", "null", "null", DECODER, BPE, "", "");
  refuse(undone, "add_prefix_space", "null", "{\"type\": \"ByteLevel\"}", "null", DECODER, BPE, "", "");
  refuse(undone, "no ByteLevel", "null", "{\"type\": \"Sequence\", \"pretokenizers\": []}", "null", DECODER, BPE, "",
         "");
  refuse(undone, "BertProcessing", "null", LEVEL, "{\"type\": \"BertProcessing\"}", DECODER, BPE, "", "");
  refuse(undone, "WordPiece", "null", LEVEL, "null", "{\"type\": \"WordPiece\"}", BPE, "", "");
  refuse(undone, "decoder", "null", LEVEL, "null", "null", BPE, "", "");
  refuse(undone, "Unigram", "null", LEVEL, "null", DECODER, "\"type\": \"Unigram\"", "", "");
  refuse(undone, "dropout", "null", LEVEL, "null", DECODER, BPE ", \"dropout\": 0.1", "", "");
  refuse(undone, "end_of_word_suffix", "null", LEVEL, "null", DECODER, BPE ", \"end_of_word_suffix\": \"x\"", "", "");
  refuse(undone, "byte_fallback", "null", LEVEL, "null", DECODER, BPE ", \"byte_fallback\": true", "", "");
  refuse(undone, "surprise", "null", LEVEL, "null", DECODER, BPE ", \"surprise\": 1", "", "");
  refuse(undone, "truncation", "null", LEVEL, "null", DECODER, BPE, "", "\"truncation\": {},");
  refuse(undone, "single_word", "null", LEVEL, "null", DECODER, BPE, ADDED("<x>", ", \"single_word\": true"), "");
  refuse(bad, "1 .. 1024", "null", LEVEL, "null", DECODER, BPE, ADDED("", ""), "");
  refuse(bad, "two added tokens", "null", LEVEL, "null", DECODER, BPE, ADDED("<x>", "") ", " ADDED("<y>", ""), "");
  refuse(bad, "\"zz\"", "null", LEVEL, "null", DECODER, "\"type\": \"BPE\", \"merges\": [\"zz a\"]", "", "");
  refuse(bad, "what this merge makes", "null", LEVEL, "null", DECODER, "\"type\": \"BPE\", \"merges\": [\"a b\"]", "",
         "");
  refuse(bad, "a merge is", "null", LEVEL, "null", DECODER, "\"type\": \"BPE\", \"merges\": [[\"a\"]]", "", "");
  refuse(undone, "nothing at all", "null", SPLIT("a*"), "null", DECODER, BPE, "", "");
  refuse(undone, "\\w", "null", SPLIT("\\\\w+"), "null", DECODER, BPE, "", "");
  refuse(undone, "(?<n", "null", SPLIT("(?<n>a)"), "null", DECODER, BPE, "", "");
  refuse(undone, "\\1", "null", SPLIT("(a)\\\\1"), "null", DECODER, BPE, "", "");
  refuse(undone, "(*U", "null", SPLIT("(*UTF)a"), "null", DECODER, BPE, "", "");
  refuse(undone, "&&", "null", SPLIT("[a&&b]"), "null", DECODER, BPE, "", "");
  refuse(undone, "{2,}+", "null", SPLIT("a{2,}+"), "null", DECODER, BPE, "", "");
  refuse(bad, "does not compile", "null", SPLIT("a)"), "null", DECODER, BPE, "", "");
  refuse(bad, "does not compile", "null", SPLIT("\\\\p{Klingon}"), "null", DECODER, BPE, "", "");
}

/* Every way to cut the small file short, and one byte of it changed in many ways: refused or still a tokenizer, with no
 * memory left over. */
static void damaged_files(void **state) {
  (void)state;
  sluice_text file = {0};
  byte_file(&file, "{\"type\": \"NFC\"}", SPLIT("[^a]|\\\\p{L}{2,3}"), DECODER, DECODER, BPE, ADDED("<x>", ""), "");
  const size_t before = sluice_live_allocations();
  for (size_t cut = 0; cut < file.length; cut += 7) {
    sluice_tokenizer *t = NULL;
    sluice_status *status = sluice_tokenizer_parse_json(file.data, cut, "cut.json", &t);
    assert_non_null(status);
    sluice_status_free(status);
  }
  for (size_t i = 0; i < file.length; i += 3) {
    const char was = file.data[i];
    file.data[i] = "\"0]{\\xffx"[i % 7];
    sluice_tokenizer *t = NULL;
    sluice_status *status = sluice_tokenizer_parse_json(file.data, file.length, "changed.json", &t);
    sluice_status_free(status);
    sluice_tokenizer_close(t);
    file.data[i] = was;
  }
  assert_int_equal(sluice_live_allocations(), before);
  sluice_text_free(&file);
}

static void tiktoken(void **state) {
  (void)state;
  sluice_text file = {0};
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (unsigned byte = 0; byte < 256; byte++)
    sluice_text_printf(&file, "%c%c== %u\n", digits[byte >> 2], digits[(byte & 3) << 4], byte);
  const size_t bytes = file.length;
  sluice_text_printf(&file, "YWI= 256\nYmM= 257\nYWJj 300\n\n"); /* ab, bc, abc */
  sluice_json_document *config = NULL;
  static const char specials[] = "{\"added_tokens_decoder\": {\"400\": {\"content\": \"<|end|>\", \"special\": true}}}";
  must(sluice_json_parse(specials, sizeof specials - 1, "config.json", &config));
  sluice_tokenizer *t = NULL;
  sluice_encoder *e = NULL;
  must(sluice_tokenizer_parse_tiktoken(file.data, file.length, "a.tiktoken", config, &t));
  must(sluice_encoder_create(t, &e));
  assert_int_equal(sluice_tokenizer_size(t), 401);
  const int32_t *ids;
  size_t count;
  must(sluice_encode(e, "abcbc<|end|>", 12, &all, &ids, &count));
  assert_int_equal(count, 3);
  assert_int_equal(ids[0], 300);
  assert_int_equal(ids[1], 257);
  assert_int_equal(ids[2], 400);
  sluice_encoder_free(e);
  sluice_tokenizer_close(t);
  static const char *const wrong[] = {"YWI 301\n",    "YWI=\n",         "YWI= x\n",
                                      "YWI= 301 1\n", "YWI= 5\n",       "YWI= 301\nYWI= 302\n",
                                      "=== 301\n",    "YWI= 99999999\n"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    file.length = bytes;
    sluice_text_printf(&file, "%s", wrong[i]);
    sluice_status *status = sluice_tokenizer_parse_tiktoken(file.data, file.length, "a.tiktoken", NULL, &t);
    assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
    sluice_status_free(status);
  }
  const size_t half = (size_t)(strchr(file.data + bytes / 2, '\n') - file.data);
  sluice_status *status = sluice_tokenizer_parse_tiktoken(file.data, half, "half.tiktoken", NULL, &t);
  assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED); /* bytes without a token */
  sluice_status_free(status);
  sluice_json_free(config);
  sluice_text_free(&file);
}

/* ---- Cost ---- */

static double cpu_seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double seconds_of_word(size_t length) {
  char *word = malloc(length);
  uint64_t seed = 7;
  assert_non_null(word);
  for (size_t i = 0; i < length; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    word[i] = (char)('a' + (seed >> 40) % 26);
  }
  const int32_t *ids;
  size_t count;
  const double start = cpu_seconds();
  must(sluice_encode(encoder, word, length, NULL, &ids, &count));
  free(word);
  assert_true(count > length / 8);
  return cpu_seconds() - start;
}

/* A word of 1 MB costs about four times one of 256 KB: quadratic merging would cost sixteen times, and minutes. */
static void long_words(void **state) {
  (void)state;
  seconds_of_word(1u << 20); /* scratch memory is there */
  double least = 1e9, most = 1e9;
  for (int i = 0; i < 3; i++) {
    const double small_one = seconds_of_word(1u << 18), large = seconds_of_word(1u << 20);
    if (small_one < least) least = small_one;
    if (large < most) most = large;
  }
  print_message("a word of 256 KB %.1f ms, of 1 MB %.1f ms\n", 1e3 * least, 1e3 * most);
  assert_true(most < 10 * least);
}

/* An expression that backtracks without end, on text that makes it: an error, soon. */
/* Encodes a text of `length` bytes, the letter `fill` and `last` at the end, with a tokenizer whose expression is
 * `split`: the error, and the CPU time. */
static sluice_status *encode_fill(const char *split, char fill, char last, size_t length, double *out_seconds) {
  sluice_text file = {0};
  sluice_tokenizer *t = NULL;
  sluice_encoder *e = NULL;
  byte_file(&file, "null", split, "null", DECODER, BPE, "", "");
  must(sluice_tokenizer_parse_json(file.data, file.length, "slow.json", &t));
  must(sluice_encoder_create(t, &e));
  char *text = malloc(length);
  assert_non_null(text);
  memset(text, fill, length);
  text[length - 1] = last;
  const int32_t *ids;
  size_t count;
  const double start = cpu_seconds();
  sluice_status *status = sluice_encode(e, text, length, NULL, &ids, &count);
  *out_seconds = cpu_seconds() - start;
  if (!status) assert_int_equal(count, length); /* no merges: each byte is a token */
  free(text);
  sluice_encoder_free(e);
  sluice_tokenizer_close(t);
  sluice_text_free(&file);
  return status;
}

/* Whatever the expression, the time is linear in the text: one that would backtrack without end, or look ahead far and
 * take little, again and again, is stopped. */
static void slow_expressions(void **state) {
  (void)state;
  static const char *const slow[] = {SPLIT("(?:a+)+b|c"), SPLIT("a*[bc]|a"), SPLIT("a+b|a{1,3}"),
                                     SPLIT("(?=a*b)a|a"), SPLIT("a(?!a*b)"), SPLIT("(?:a|aa)+b|a"),
                                     SPLIT("[^b]+b|."),   SPLIT("a*b"),      SPLIT("a*a*a*a*b|a")};
  for (size_t i = 0; i < sizeof slow / sizeof *slow; i++)
    for (size_t length = 64; length <= (size_t)1 << 20; length *= 128) {
      double seconds;
      sluice_status *status = encode_fill(slow[i], 'a', 'a', length, &seconds);
      if (status) {
        assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
        assert_non_null(strstr(sluice_status_message(status), "backtrack"));
      }
      if (length == (size_t)1 << 20 && !status) fail_msg("%s is not stopped", slow[i]);
      if (seconds > 20) fail_msg("%s takes %.1f s for %zu bytes", slow[i], seconds, length);
      sluice_status_free(status);
    }
}

/* Expressions that read long words once, or twice: as far as they like. */
static void long_matches(void **state) {
  (void)state;
  static const char *const fine[] = {SPLIT("a+"), SPLIT("a+b|a+"),      SPLIT("[ab]*c|[ab]+"),
                                     SPLIT("b+"), SPLIT("a{1,3}"),      SPLIT("a+(?!a)|b"),
                                     SPLIT("a"),  SPLIT("b|a{100,300}")};
  for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
    for (int last = 0; last < 2; last++) {
      double seconds;
      must(encode_fill(fine[i], 'a', last ? 'b' : 'a', 1 << 20, &seconds));
      if (seconds > 20) fail_msg("%s takes %.1f s", fine[i], seconds);
    }
}

/* One tokenizer, an encoder for each thread: all get the ids that one thread alone gets. */
static const char shared_text[] =
    "The compiler's \xE6\x97\xA5\xE6\x9C\xAC 1234 e\xCC\x81 ]~b] == don't\r\n  \xF0\x9F\x98\x80 ";

static void *encode_often(void *user) {
  sluice_encoder *own = NULL;
  sluice_status *status = sluice_encoder_create(small, &own);
  uint64_t sum = 0;
  for (int i = 0; i < 300 && !status; i++) {
    const int32_t *ids;
    size_t count;
    status = sluice_encode(own, shared_text + i % 7, sizeof shared_text - 8, &all, &ids, &count);
    for (size_t k = 0; k < count && !status; k++) sum = sum * 31 + (uint64_t)ids[k];
  }
  *(uint64_t *)user = status ? 0 : sum;
  sluice_status_free(status);
  sluice_encoder_free(own);
  return NULL;
}

static void threads_share_a_tokenizer(void **state) {
  (void)state;
  uint64_t alone = 0, sums[4] = {0};
  pthread_t threads[4];
  encode_often(&alone);
  assert_true(alone != 0);
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &sums[i]), 0);
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (int i = 0; i < 4; i++) assert_true(sums[i] == alone);
}

/* Memory that runs short anywhere is an error, and nothing leaks. */
static int fail_at(void *user, size_t bytes) {
  (void)bytes;
  size_t *left = user;
  if (*left == 0) return 1;
  --*left;
  return 0;
}

static void memory_runs_short(void **state) {
  (void)state;
  sluice_text file = {0};
  byte_file(&file, "{\"type\": \"NFC\"}", SPLIT("[^a]|a"), DECODER, DECODER, BPE, ADDED("<x>", ""), "");
  const size_t before = sluice_live_allocations();
  bool succeeded = false;
  for (size_t n = 0; !succeeded; n++) {
    size_t left = n;
    sluice_tokenizer *t = NULL;
    sluice_encoder *e = NULL;
    const int32_t *ids;
    size_t count;
    sluice_set_allocation_hook(fail_at, &left);
    sluice_status *status = sluice_tokenizer_parse_json(file.data, file.length, "a.json", &t);
    if (!status) status = sluice_encoder_create(t, &e);
    if (!status)
      status = sluice_encode(e,
                             "b\xFF"
                             "e\xCC\x81<x>",
                             7, &all, &ids, &count);
    sluice_set_allocation_hook(NULL, NULL);
    succeeded = !status;
    if (status) assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    sluice_status_free(status);
    sluice_encoder_free(e);
    sluice_tokenizer_close(t);
    assert_int_equal(sluice_live_allocations(), before);
  }
  sluice_text_free(&file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_ids),
      cmocka_unit_test(added_tokens_are_text_unless_asked),
      cmocka_unit_test(plain_parts),
      cmocka_unit_test(invalid_utf8),
      cmocka_unit_test(streaming),
      cmocka_unit_test(normalisation),
      cmocka_unit_test(a_large_file_opens_fast),
      cmocka_unit_test(files),
      cmocka_unit_test(damaged_files),
      cmocka_unit_test(tiktoken),
      cmocka_unit_test(long_words),
      cmocka_unit_test(slow_expressions),
      cmocka_unit_test(long_matches),
      cmocka_unit_test(memory_runs_short),
      cmocka_unit_test(threads_share_a_tokenizer),
  };
  return cmocka_run_group_tests(tests, open_small, close_small);
}
