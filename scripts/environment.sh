#!/bin/sh
# Makes or refreshes .venv from a hash-pinned lock file:  environment.sh [runtime|dev]
#
# runtime  what `psephos` itself needs (requirements.lock)
# dev      that, and the tools of `make check` and `make test` (requirements-dev.lock, a superset)
#
# Nothing is done when .venv already matches. Variables: PYTHON names the interpreter to use;
# PSEPHOS_ALLOW_BUILD=1 lets pip compile what has no wheel for this platform (docs/adr/0002).
set -eu

kind=${1:-runtime}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv

fail() {
    printf 'psephos: %s\n' "$*" >&2
    exit 1
}

case $kind in
    runtime) lock=$root/requirements.lock ;;
    dev) lock=$root/requirements-dev.lock ;;
    *) fail "environment.sh takes 'runtime' or 'dev', not '$kind'" ;;
esac

# What .venv was made from. The path is part of it: a virtual environment that was moved does not work.
fingerprint() {
    printf '%s %s %s\n' "$1" "$(cksum < "$1")" "$(cksum < "$0")"
}
wanted=$(fingerprint "$lock")
dev=$(fingerprint "$root/requirements-dev.lock")
stamp=$(cat "$venv/.psephos" 2>/dev/null || true)

# A link to what was not made for this tree: it serves as it is (its `psephos` is that tree's), since making it anew
# here would delete it there.
if [ -L "$venv" ] && [ "${stamp#"$root"/}" = "$stamp" ]; then
    [ -x "$venv/bin/python" ] || fail "$venv is a link to what is no environment"
    exit 0
fi
if [ -x "$venv/bin/python" ] && { [ "$stamp" = "$wanted" ] || [ "$stamp" = "$dev" ]; }; then
    exit 0
fi

supported='import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)))'
version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
python='' without_venv='' seen=''
for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
    found=$("$candidate" -c "$version" 2>/dev/null) || continue
    if ! "$candidate" -c "$supported" 2>/dev/null; then
        seen="${seen:+$seen, }$candidate is $found"
    elif ! "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
        without_venv=${without_venv:-$candidate}
    else
        python=$candidate
        break
    fi
done
if [ -z "$python" ] && [ -n "$without_venv" ]; then
    minor=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$without_venv lacks the venv module: install it (Debian, Ubuntu: apt install python$minor-venv) and run this again."
fi
if [ -z "$python" ]; then
    fail "Python 3.11 or 3.12 is needed and was not found${seen:+ ($seen)}: install it" \
        "(Debian, Ubuntu: apt install python3.11 python3.11-venv) or name it: make up PYTHON=/path/to/python3.11"
fi

if ! "$venv/bin/python" -c "$supported" 2>/dev/null || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    { [ -n "$stamp" ] && [ "${stamp#"$root"/}" = "$stamp" ]; }; then
    printf 'psephos: making .venv with %s (%s)\n' "$python" "$("$python" -c "$version")"
    "$python" -m venv --clear "$venv" || fail "$python could not make $venv: see the message above."
fi
printf '%s/ is not done\n' "$root" > "$venv/.psephos"

only_binary='--only-binary=:all:'
[ "${PSEPHOS_ALLOW_BUILD:-}" = 1 ] && only_binary=''
total=$(grep -c '^[A-Za-z0-9._-]*==' "$lock" || true)
log=$venv/install.log
show() { # pip's lines in, one line of progress out
    count=0
    while IFS= read -r line; do
        printf '%s\n' "$line"
        case $line in
            "Collecting "* | "Requirement already satisfied: "*)
                count=$((count + 1))
                name=${line#Collecting } name=${name#Requirement already satisfied: }
                if [ -t 2 ]; then
                    printf '\r\033[Kpsephos: packages %d/%d  %s' "$count" "$total" "${name%%==*}" >&2
                elif [ $((count % 20)) -eq 0 ]; then
                    printf 'psephos: packages %d/%d\n' "$count" "$total" >&2
                fi ;;
            "Installing collected packages"*)
                if [ -t 2 ]; then printf '\r\033[K' >&2; fi
                printf 'psephos: installing %d packages\n' "$count" >&2 ;;
        esac
    done
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}
# shellcheck disable=SC2086  # only_binary is one word or none
{
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes $only_binary \
        -r "$lock" 2>&1 && : > "$venv/.installed"
} | show > "$log"
if ! rm "$venv/.installed" 2>/dev/null; then
    grep -m 3 '^ERROR' "$log" >&2 || tail -n 3 "$log" >&2
    fail "installing the locked packages failed (all of it: $log)." \
        "Is the package index reachable? Platforms without wheels: docs/adr/0002-plyvel-platforms.md"
fi

# The project itself: its folder on the path and a console script. No build tool, hence no network, is needed.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$root" > "$site/psephos.pth"
{
    printf '#!/bin/sh\n# -P: the folder in which it is called must not hide a module.\n'
    printf "exec '%s' -P -m cluster \"\$@\"\n" "$(printf %s "$venv/bin/python" | sed "s/'/'\\\\''/g")"
} > "$venv/bin/psephos"
chmod +x "$venv/bin/psephos"
printf '%s\n' "$wanted" > "$venv/.psephos"
printf 'psephos: .venv is ready\n'
