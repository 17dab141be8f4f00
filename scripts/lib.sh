# shellcheck shell=sh
# What the scripts beside this one share. Source it; it runs nothing.

# say WORDS: one line for the user, marked so that it stands out from the output of tools.
say() {
    printf '==> %s\n' "$*" >&2
}

# die WORDS: say why and stop.
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# as_root COMMAND...: run it with the rights to install packages.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root and there is no sudo; as root run: $*"
    fi
}

# apt_install PACKAGE...: announce and install. The package lists are fetched only where they are missing or too old.
apt_install() {
    say "installing with apt-get: $*"
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >&2; then
        say "once more with fresh package lists"
        as_root apt-get update -qq >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >&2
    fi
}

# model_dir: where `concertina pull` puts models, each as NAME.gguf.
model_dir() {
    if [ -n "${CONCERTINA_CACHE:-}" ]; then
        printf '%s/models\n' "$CONCERTINA_CACHE"
    elif [ "$(uname -s)" = Darwin ]; then
        printf '%s/Library/Caches/concertina/models\n' "$HOME"
    else
        printf '%s/concertina/models\n' "${XDG_CACHE_HOME:-$HOME/.cache}"
    fi
}
