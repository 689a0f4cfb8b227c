#!/bin/sh
# Get what the C++ program needs to build: install compiler, CMake, OpenCV and a JSON library if this user may; take ONNX Runtime's
# headers from the system, or unpack them from Debian's package into build/ort. (The library itself is that of Python's wheel; its C
# interface is versioned, so older headers fit.) Where that fails, print one line, without an error.
set -eu
cd "$(dirname "$0")/../.."
here=$(pwd)/build/ort
later_suites="trixie forky sid"  # after bookworm, which has no libonnxruntime-dev

give_up() { echo "C++: $1: its tests will be skipped"; exit 0; }

have_tools() {
  command -v c++ && command -v cmake && [ -f /usr/include/opencv4/opencv2/imgcodecs.hpp ] &&
    [ -f /usr/include/opencv4/opencv2/calib3d.hpp ] && [ -f /usr/include/nlohmann/json.hpp ]
}

have_headers() { export/cpp/build.sh --headers >/dev/null 2>&1; }

# Run apt for the suite $1, with separate package lists, on the same servers that this system uses.
apt_of() {
  suite=$1; shift
  mkdir -p "$here/lists/partial" "$here/cache/archives/partial"
  rm -rf "$here/sources"; mkdir "$here/sources"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    [ ! -f "$file" ] || sed "s/\b$ours\b/$suite/g" "$file" > "$here/sources/$(basename "$file")"
  done
  apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$here/sources" -o Dir::State::Lists="$here/lists" \
    -o Dir::Cache="$here/cache" -o APT::Sandbox::User= "$@"
}

if ! have_tools >/dev/null; then
  { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } ||
    give_up "no compiler, CMake, OpenCV or JSON reader, and no right to install them"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    g++ make cmake libopencv-imgcodecs-dev libopencv-calib3d-dev nlohmann-json3-dev >/dev/null ||
    give_up "apt could not install its packages"
fi
if ! have_headers; then
  command -v apt-get >/dev/null || give_up "no headers of ONNX Runtime, and no apt to download them"
  ours=$(. /etc/os-release; echo "${VERSION_CODENAME:-}")
  [ -n "$ours" ] || give_up "no headers of ONNX Runtime, and this system's suite is unknown"
  for suite in "$ours" $later_suites; do
    { apt_of "$suite" update && (cd "$here" && apt_of "$suite" download libonnxruntime-dev); } 2>/dev/null && break
    rm -rf "$here"
  done
  for package in "$here"/libonnxruntime-dev_*.deb; do
    [ ! -f "$package" ] || dpkg -x "$package" "$here"
  done
  rm -rf "$here/lists" "$here/cache" "$here/sources"
  have_headers || give_up "no suite that can be reached has libonnxruntime-dev"
fi
