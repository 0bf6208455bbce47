# bash completion for sluice and sluice-run

_sluice_complete_from() { # WORDS CURRENT
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

_sluice_complete_files() {
  compopt -o filenames 2> /dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$1")
}

_sluice() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    _sluice_complete_from "compile synth opt inspect explain tune tuning keygen sign --help --version" "$current"
    return
  fi
  # readline splits --name=value into three words
  if [ "$current" = = ]; then
    current=
  elif [ "$previous" = = ]; then
    previous=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  case $previous in
  --target) _sluice_complete_from "host host:x86-64 host:x86-64-v2 host:x86-64-v3 host:x86-64-v4
    host:x86-64-v4-bf16 cuda:sm_90a h100 h200" "$current" ;;
  --dtype | --weight-dtype) _sluice_complete_from "float32 bfloat16" "$current" ;;
  --emit) _sluice_complete_from "bundle program object model-ir kernel-ir llvm-ir asm obj" "$current" ;;
  --passes | --disable-pass | --print-ir-after)
    _sluice_complete_from "$("${COMP_WORDS[0]}" opt --help 2> /dev/null |
      sed -n '/^Passes/,$ s/^  [* ] \([a-z-]*\) .*/\1/p')" "$current"
    ;;
  --seed | --shard-size | --max-context | --sequences | --context | --step-tokens | --tokens | --bandwidth | --flops | --shapes | --candidates | --parallel | \
    --devices | --link-latency | --link-rate) ;;
  *)
    if [[ $current != -* ]]; then
      _sluice_complete_files "$current"
      return
    fi
    case $command in
    compile)
      _sluice_complete_from "--target --output --dtype --weight-dtype --max-context --parallel --batch-invariant --emit --tuning
        --disable-pass --print-ir-after --print-ir-diff --verify-each --time-passes --save-temps --help" "$current"
      ;;
    synth) _sluice_complete_from "--seed --output --shard-size --help" "$current" ;;
    opt)
      _sluice_complete_from "--passes --target --parallel --batch-invariant --output --print-ir-after --print-ir-diff --verify-each
        --time-passes --help" "$current"
      ;;
    inspect) _sluice_complete_from "--json --sequences --context --step-tokens --help" "$current" ;;
    tune) _sluice_complete_from "--target --output --shapes --context --candidates --rates --dtype --max-context --help" "$current" ;;
    tuning) _sluice_complete_from "--output --help" "$current" ;;
    keygen) _sluice_complete_from "--help" "$current" ;;
    sign) _sluice_complete_from "--key --help" "$current" ;;
    explain)
      _sluice_complete_from "--json --tokens --context --sequences --product --bandwidth --flops --parallel --devices
        --link-latency --link-rate --help" "$current"
      ;;
    esac
    ;;
  esac
}
complete -F _sluice sluice

_sluice_run() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    _sluice_complete_from "generate chat template tokenize verify bench tune calibrate memory launch --help --version" "$current"
    return
  fi
  if [ "$current" = = ]; then
    current=
  elif [ "$previous" = = ]; then
    previous=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  case $previous in
  --device) _sluice_complete_from "host cuda:0" "$current" ;;
  --kernel)
    local kernels="projections select_attend attention output_projection mlp router experts routed shared_expert moe
      lm_head sample"
    # shellcheck disable=SC2086
    _sluice_complete_from "$(printf 'decode.%s ' $kernels) $(printf 'prefill.%s ' $kernels) step.decode step.prefill" \
      "$current"
    ;;
  --min-p | --repetition-penalty | --presence-penalty | --frequency-penalty | --prompt | --stop | --logprobs | --max-new | --chunk | --temperature | --top-p | --top-k | --seed | --dump-rows | --threads | --context | --sequences | \
    --repeat | --step-tokens | --layer | --shape | --seconds | --memory-rate | --flop-rate) ;;
  *)
    if [[ $current != -* ]]; then
      _sluice_complete_files "$current"
      return
    fi
    case $command in
    generate)
      _sluice_complete_from "--weights --prompt --prompt-file --ids --tokenizer --special --stop --max-new --ignore-eos
        --allow-nan --chunk --temperature --top-p --top-k --min-p --repetition-penalty
        --presence-penalty --frequency-penalty --logprobs --seed --device --trust --threads --dump --dump-rows --dump-layers --trace --json --leader --secret --rank-deadline --help" "$current"
      ;;
    launch) _sluice_complete_from "-n --help generate" "$current" ;;
    template) _sluice_complete_from "--weights --template-name --tools --thinking --no-generation-prompt --ids --tokenizer --help" "$current" ;;
    chat) _sluice_complete_from "--weights --system --tools --thinking --template-name --tokenizer --context --max-new --chunk --temperature --top-p --top-k --stop --min-p --repetition-penalty --presence-penalty --frequency-penalty --logprobs --seed --device --trust --threads --json --times --help" "$current" ;;
    tokenize) _sluice_complete_from "--weights --tokenizer --ids --special --decode --help" "$current" ;;
    verify) _sluice_complete_from "--weights --golden --chunk --device --trust --threads --trace --json --help" "$current" ;;
    bench)
      _sluice_complete_from "--kernel --layer --shape --weights --repeat --memory-rate --flop-rate --device --trust --threads
        --trace --json --help" "$current"
      ;;
    tune | calibrate) _sluice_complete_from "--device --seconds --threads --help" "$current" ;;
    memory) _sluice_complete_from "--sequences --context --step-tokens --device --trust --json --help" "$current" ;;
    esac
    ;;
  esac
}
complete -F _sluice_run sluice-run
