#!/usr/bin/env bash
# Ids and decoded text of libsluice_text equal those of the `tokenizers` library, where that is installed; the rest of its
# tests do without. More strings, and a public vocabulary of 200k entries: tests/oracle/compare_tokenizers.py --help.
set -euo pipefail
export PYTHONPATH=$SLUICE_SOURCE/build/tools/python
python3 -c 'import tokenizers' 2> /dev/null || { echo "skipped: no tokenizers"; exit 0; }
python3 "$SLUICE_SOURCE/tests/oracle/compare_tokenizers.py" "$SLUICE_BUILD/tests/text_oracle" --strings 6000
