#!/usr/bin/env bash
# Messages to a prompt, and a conversation: history from the cache, /save, users' special tokens as text.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$SLUICE" synth "$SLUICE_SOURCE/tests/golden/nano" --seed 1 -o weights 2> /dev/null
"$SLUICE" compile weights --target host --dtype float32 -o nano.sluice 2> /dev/null
cp "$SLUICE_SOURCE"/examples/tokenizer/{tokenizer,generation_config}.json weights
cp "$SLUICE_SOURCE/tests/templates/namespace.jinja" weights/chat_template.jinja
fail() { echo "$1"; exit 1; }

echo '[{"role": "user", "content": "hi [e~["}]' > m.json
"$SLUICE_RUN" template --weights weights m.json > text
grep -qF 'hi [e~[[e~[' text || fail "the message is not in the prompt"
[ "$("$SLUICE_RUN" template --weights weights m.json --ids | grep -ow 502 | wc -l)" = 3 ] || fail "a user's [e~[ became a token"
"$SLUICE_RUN" template --weights weights m.json --thinking on | tail -1 | grep -qF '<mm:think>' || fail "no reasoning is begun"
code=0; "$SLUICE_RUN" template --weights . m.json 2> err || code=$?
[ $code = 1 ] && grep -q 'no chat template' err || { cat err; fail "a checkpoint without a template"; }

printf 'hello\nagain\n/save c.json\n/reset\nhello\n/exit\n' |
  "$SLUICE_RUN" chat nano.sluice --weights weights --max-new 8 --temperature 0 --times > out 2> err
grep -q 'saved to c.json' err || { cat err; fail "nothing was saved"; }
[ "$(grep -c 'of which 0 were in the cache' err)" = 2 ] || { cat err; fail "/reset keeps the cache"; }
[ "$(grep -c 'in the cache' err)" = 3 ] || fail "three answers"
python3 -c 'import json; m = json.load(open("c.json")); assert [x["role"] for x in m] == ["user", "assistant"] * 2'
