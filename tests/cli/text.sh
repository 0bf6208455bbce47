#!/usr/bin/env bash
# Text in, text out: tokenize, and generate from a prompt of text, with what lies beside the weights.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$SLUICE" synth "$SLUICE_SOURCE/tests/golden/nano" --seed 1 -o weights 2> /dev/null
"$SLUICE" compile weights --target host --dtype float32 -o nano.sluice 2> /dev/null
cp "$SLUICE_SOURCE"/examples/tokenizer/{tokenizer,generation_config}.json weights
fail() { echo "$1"; exit 1; }
same() { [ "$1" = "$2" ] || fail "got '$1', expected '$2'"; }
refused() { # CODE TEXT COMMAND...
  local wanted=$1 text=$2 code=0
  shift 2
  "$@" > out 2> err < /dev/null || code=$?
  [ "$code" = "$wanted" ] && grep -qF -- "$text" err && [ ! -s out ] || { cat out err; fail "$*: exit $code, expected $wanted and '$text'"; }
}

# tokenize
tokenize=("$SLUICE_RUN" tokenize --weights weights)
same "$(printf 'Hello <think>' | "${tokenize[@]}" --ids --special)" "39 271 281 220 506"
same "$(printf 'Hello' | "${tokenize[@]}")" $'39\t"H"\n271\t"el"\n281\t"lo"'
printf 'a\tb\xff <think>[e~[\n\xe6\x97\xa5' > text
"${tokenize[@]}" --ids < text > ids
grep -qE '\b(502|506)\b' ids && fail "a user's special tokens became tokens"
"$SLUICE_RUN" tokenize --tokenizer weights/tokenizer.json --decode < ids > back
printf 'a\tb\xef\xbf\xbd <think>[e~[\n\xe6\x97\xa5' | cmp - back
refused 1 "holds no tokenizer.json" "$SLUICE_RUN" tokenize --weights .
refused 2 "tokenize needs" "$SLUICE_RUN" tokenize
refused 2 "unexpected argument" "${tokenize[@]}" nano.sluice

# generate: the text is that of the ids, with and without --json, from a string, a file and standard input
generate=("$SLUICE_RUN" generate nano.sluice --weights weights --max-new 24)
"${generate[@]}" --prompt "The compiler" --ignore-eos > streamed
"${generate[@]}" --prompt "The compiler" --ignore-eos --json --logprobs 3 > json
python3 - << 'END'
import json, math
r = json.load(open("json"))
assert open("streamed", encoding="utf-8", newline="").read() == r["text"] + "\n", r["text"]
assert len(r["ids"]) == 24 == len(r["logprobs"]) == len(r["token_seconds"]) + 1 and r["stopped"] == "max_new"
assert r["tokens_per_second"] > 0 and r["first_token_seconds"] > 0
for token, p in zip(r["ids"], r["logprobs"]):
    top = [value for _, value in p["top"]]
    assert p["id"] == token and len(top) == 3 and top == sorted(top, reverse=True) and p["logprob"] <= top[0] < 0
open("ids", "w").write(" ".join(map(str, r["ids"])))
open("text", "w", newline="").write(r["text"])
END
"${tokenize[@]}" --decode < ids | cmp - text

# Log-probabilities are those of the logits, which penalties have changed.
"${generate[@]}" --prompt "The compiler" --ignore-eos --json --logprobs 20 --repetition-penalty 1.2 --frequency-penalty 0.3 \
  --dump dump.safetensors > json
python3 - << 'END'
import json, math, struct
data = open("dump.safetensors", "rb").read()
(length,) = struct.unpack_from("<Q", data)
header = json.loads(data[8:8 + length])
def rows(name):
    start, end = header[name]["data_offsets"]
    values = struct.unpack("<%df" % ((end - start) // 4), data[8 + length + start:8 + length + end])
    width = header[name]["shape"][-1]
    return [values[i:i + width] for i in range(0, len(values), width)]
result = json.load(open("json"))
logits = rows("prefill.logits")[-1:] + rows("decode.logits")
assert len(logits) == len(result["ids"]) == len(result["logprobs"])
for row, token, p in zip(logits, result["ids"], result["logprobs"]):
    zero = max(row) + math.log(sum(math.exp(x - max(row)) for x in row))
    assert abs(row[token] - zero - p["logprob"]) < 1e-5 and p["id"] == token
    best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:20]
    assert [i for i, _ in p["top"]] == best, (p["top"], best)
    assert all(abs(row[i] - zero - x) < 1e-5 for i, x in p["top"])
END
printf 'The compiler' > prompt
"${generate[@]}" --prompt-file prompt --ignore-eos | cmp - streamed
"${generate[@]}" --prompt-file - --ignore-eos < prompt | cmp - streamed

# Defaults are those of generation_config.json: drawn at temperature 1 with top-p 0.95; an option wins.
same "$("${generate[@]}" --prompt x --ignore-eos)" "$("${generate[@]}" --prompt x --ignore-eos --temperature 1 --top-p 0.95)"
[ "$("${generate[@]}" --prompt x --ignore-eos)" != "$("${generate[@]}" --prompt x --ignore-eos --temperature 0)" ] || fail "the temperature of generation_config.json is not used"
greedy=$("${generate[@]}" --prompt x --ignore-eos --temperature 0 --json | python3 -c 'import json, sys; print(*json.load(sys.stdin)["ids"])')
read -ra ids <<< "$greedy"
echo "{\"eos_token_id\": [511, ${ids[4]}]}" > weights/generation_config.json
"${generate[@]}" --prompt x --json > json # greedy: nothing asks for sampling
python3 - "$greedy" << 'END'
import json, sys
r, ids = json.load(open("json")), [int(i) for i in sys.argv[1].split()]
assert r["stopped"] == "stop_id" and r["ids"] == ids[:ids.index(ids[4]) + 1], r
END
echo '{"do_sample": true, "temperature": "hot"}' > weights/generation_config.json
refused 1 "generation_config.json:1:" "${generate[@]}" --prompt x
rm weights/generation_config.json

# Stop strings end the text where they begin, wherever tokens end; nothing of them is printed.
python3 - << 'END'
text = open("text", encoding="utf-8", newline="").read()
at = len(text) // 2
open("stop", "w", newline="").write(text[at:at + 5])
open("before", "w", newline="").write(text[:text.index(text[at:at + 5])] + "\n")
END
stop=$(cat stop)
"${generate[@]}" --prompt "The compiler" --ignore-eos --temperature 1 --top-p 0.95 --stop "never" --stop "$stop" | cmp - before
"${generate[@]}" --prompt "The compiler" --ignore-eos --temperature 1 --top-p 0.95 --stop "$stop" --json | grep -q '"stopped": "stop_string"'

echo 1 17 42 99 256 400 > prompt_ids

# On a terminal: a line with the times at the end.
python3 - "${generate[@]}" --prompt x --chunk 1 << 'END'
import os, pty, sys
master, terminal = pty.openpty()
child = os.fork()
if child == 0:
    os.dup2(terminal, 2)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    os.execv(sys.argv[1], sys.argv[1:])
os.close(terminal)
data = b""
while True:
    try:
        part = os.read(master, 4096)
    except OSError:
        break
    if not part:
        break
    data += part
assert os.waitpid(child, 0)[1] == 0
assert b"24 tokens after 1, max_new" in data and b"tokens/s]" in data and b"loading weights" in data, data
END

# Penalties: a token that was generated or stands in the prompt is not chosen again; min-p 1 is the likeliest one.
for penalty in "--presence-penalty 100" "--frequency-penalty 100"; do
  # shellcheck disable=SC2086
  same "$("${generate[@]}" --ids prompt_ids --ignore-eos $penalty | tr ' ' '\n' | sort | uniq -d)" ""
done
"${generate[@]}" --ids prompt_ids --ignore-eos --temperature 0 --repetition-penalty 1000 > new
[ "$(cat new)" != "$("${generate[@]}" --ids prompt_ids --ignore-eos --temperature 0)" ] || fail "no repetition penalty"
same "$("${generate[@]}" --ids prompt_ids --ignore-eos --temperature 1 --min-p 1)" "$("${generate[@]}" --ids prompt_ids --ignore-eos --temperature 0)"
echo '{"repetition_penalty": 1000}' > weights/generation_config.json
"${generate[@]}" --ids prompt_ids --ignore-eos | cmp - new
rm weights/generation_config.json
refused 2 "--min-p must lie" "${generate[@]}" --prompt a --min-p 2
refused 2 "--repetition-penalty must lie" "${generate[@]}" --prompt a --repetition-penalty 0

refused 2 "one of --prompt" "${generate[@]}"
refused 2 "one of --prompt" "${generate[@]}" --prompt a --ids ids
refused 2 "go with --prompt" "${generate[@]}" --ids ids --stop a
refused 2 "--logprobs needs --json" "${generate[@]}" --prompt a --logprobs 1
refused 2 "an empty text" "${generate[@]}" --prompt a --stop ""
refused 2 "name one with --tokenizer" "$SLUICE_RUN" generate nano.sluice --weights synthetic:1 --prompt a
refused 1 "the prompt is empty" "${generate[@]}" --prompt ""
"$SLUICE_RUN" generate nano.sluice --weights synthetic:1 --tokenizer weights --prompt a > /dev/null
sed -i 's/"id": 511/"id": 600/' weights/tokenizer.json
refused 1 "another model's tokenizer" "${generate[@]}" --special --prompt "</mm:think>"
