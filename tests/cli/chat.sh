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

# --json: a line for each answer; stop strings, penalties, log-probabilities.
chat=("$SLUICE_RUN" chat nano.sluice --weights weights --temperature 0)
printf 'hello\nagain\n' | "${chat[@]}" --max-new 12 --json --logprobs 2 > plain.jsonl
printf 'hello\n' | "${chat[@]}" --max-new 12 --json --presence-penalty -50 --min-p 0.1 > penalised.jsonl
python3 - << 'END' > stop
import json
first, second = map(json.loads, open("plain.jsonl"))
for a in (first, second):
    assert a["role"] == "assistant" and a["stopped"] == "max_new" and len(a["ids"]) == 12 == len(a["logprobs"])
    assert len(a["token_seconds"]) == 11 and a["tokens_per_second"] > 0 and a["notes"] == []
assert first["cached_tokens"] == 0 < second["cached_tokens"] < second["prompt_tokens"]
assert json.loads(open("penalised.jsonl").read())["ids"] == [first["ids"][0]] * 12 # what was said is said again
text = first["content"]
print(next(text[i:i + 2] for i in range(2, len(text) - 2) if text[i:i + 2].isascii() and text[i:i + 2].isprintable()), end="")
END
printf 'hello\n' | "${chat[@]}" --max-new 12 --json --stop "$(cat stop)" > stopped.jsonl
python3 - << 'END'
import json
stop, full, cut = open("stop").read(), json.loads(open("plain.jsonl").readline()), json.loads(open("stopped.jsonl").read())
assert cut["stopped"] == "stop_string" and cut["content"] == full["content"][:full["content"].index(stop)], (stop, cut, full)
END
code=0; "${chat[@]}" --logprobs 1 < /dev/null 2> err || code=$?
[ $code = 2 ] && grep -q 'needs --json' err || fail "--logprobs without --json"

# A tool call and its result: the first token that the model chooses is given the text of a call, the second ends answers.
cat > tools.json << 'END'
[{"type": "function", "function": {"name": "weather", "description": "The weather", "parameters":
  {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]
END
echo "weather?" | "${chat[@]}" --tools tools.json --max-new 2 --json > two.jsonl
python3 - << 'END'
import json
call, end = json.loads(open("two.jsonl").read())["ids"]
assert call != end
mark = "]<]minimax[>["
text = f'{mark}<tool_call>\n{mark}<invoke name="weather">{mark}<city>Oslo{mark}</city>{mark}<days>2{mark}</days>{mark}</invoke>\n{mark}</tool_call>'
file = json.load(open("weights/tokenizer.json"))
file["added_tokens"] = [t for t in file["added_tokens"] if t["id"] not in (call, end)]
file["added_tokens"].append({"id": call, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": False})
json.dump(file, open("tokenizer.json", "w"))
config = json.load(open("weights/generation_config.json"))
config["eos_token_id"] = [end]
json.dump(config, open("weights/generation_config.json", "w"))
END
printf 'weather?\nrain, 7 degrees\n/save talk.json\n' |
  "${chat[@]}" --tools tools.json --tokenizer tokenizer.json --max-new 5 --json > talk.jsonl 2> err
python3 - << 'END'
import json
answers = [json.loads(line) for line in open("talk.jsonl")]
call = answers[0]["tool_calls"][0]
assert answers[0]["stopped"] == "stop_id" and answers[0]["content"] == "" and len(answers[0]["ids"]) == 1, answers[0]
assert call == {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}}
assert len(answers) == 2 and answers[1]["cached_tokens"] > 0, answers
talk = json.load(open("talk.json"))
assert [m["role"] for m in talk] == ["user", "assistant", "tool", "assistant"]
assert talk[1]["tool_calls"] == [call] and talk[2]["content"] == "rain, 7 degrees" and talk[2]["tool_call_id"] == "call_0"
json.dump(talk[:3], open("asked.json", "w"))
END
# What the model was asked the second time is what the template makes of the messages.
"$SLUICE_RUN" template --weights weights --tools tools.json asked.json > text
grep -qF 'rain, 7 degrees' text && grep -qF 'Oslo' text || fail "the call or its result is not in the prompt"
asked=$("$SLUICE_RUN" template --weights weights --tools tools.json --tokenizer tokenizer.json asked.json --ids | wc -w)
[ "$asked" = "$(python3 -c 'import json; print(json.loads(open("talk.jsonl").readlines()[1])["prompt_tokens"])')" ] ||
  fail "the second prompt is another one than the template's"
