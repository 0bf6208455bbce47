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

# On a terminal: Ctrl-C stops the answer, and the conversation goes on.
python3 - << 'END'
import os, pty, select, sys, time
run = os.environ["SLUICE_RUN"]
process, terminal = pty.fork()
if process == 0:
    os.execv(run, [run, "chat", "nano.sluice", "--weights", "weights", "--temperature", "0"])
seen = b""
def wait_for(words):
    global seen
    end = time.time() + 120
    while words not in seen:
        ready, _, _ = select.select([terminal], [], [], 1)
        if ready:
            seen += os.read(terminal, 65536)
        if time.time() > end:
            sys.exit("waited for %r, saw %r" % (words, seen))
    seen = seen[seen.index(words) + len(words):]
wait_for(b"> ")
os.write(terminal, b"hello\n")
wait_for(b"hello\r\n")
while not seen: # the answer begins
    seen += os.read(terminal, 65536)
os.write(terminal, b"\x03")
wait_for(b"]\r\n")  # the line after an answer
wait_for(b"> ")
os.write(terminal, b"/save after.json\n")
wait_for(b"saved to after.json")
os.write(terminal, b"/exit\n")
_, status = os.waitpid(process, 0)
sys.exit(status != 0)
END
grep -q '"role": "assistant"' after.json
