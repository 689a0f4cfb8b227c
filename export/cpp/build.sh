#!/bin/sh
# Build the C++ program against the ONNX Runtime of a Python's wheel: build.sh PYTHON FOLDER. `--headers` prints the headers' folder.
set -eu
cd "$(dirname "$0")/../.."

headers() {
  for folder in /usr/include/onnxruntime /usr/include/onnxruntime/core/session /usr/local/include/onnxruntime \
    build/ort/usr/include/onnxruntime; do
    [ ! -f "$folder/onnxruntime_cxx_api.h" ] || { (cd "$folder" && pwd); return; }
  done
  echo "no headers of ONNX Runtime; 'make cpp' installs them" >&2
  return 1
}

if [ "$1" = --headers ]; then headers; exit; fi
include=$(headers)
library=$("$1" -c 'import glob, importlib.util as u
print(glob.glob(u.find_spec("onnxruntime").submodule_search_locations[0] + "/capi/libonnxruntime.so*")[0])')
cmake -S export/cpp -B "$2" -DONNXRUNTIME_INCLUDE="$include" -DONNXRUNTIME_LIBRARY="$library" >/dev/null
cmake --build "$2"
