# shellcheck shell=bash
# Options from one table, for recipe.sh to source: `name|kind|default|help` a line in OPTIONS, read by the parser
# and by --help alike. The values land in opt[name]; given[name] is set for those that the user named.
declare -A opt=() kind=() given=()

die() {
    echo "run.sh: error: $*" >&2
    exit 2
}

quoted() { # the words as a shell would read them back
    local word line=''
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
        line+="${line:+ }$word"
    done
    echo "$line"
}

print_options() {
    local name type default text
    while IFS='|' read -r name type default text; do
        printf '  --%-12s %s [%s]\n' "$name" "$text" "$default"
    done <<<"$OPTIONS"
}

distance() { # how many letters must change to turn $1 into $2
    local i j up diagonal best
    local -a row=()
    for ((j = 0; j <= ${#2}; j++)); do row[j]=$j; done
    for ((i = 1; i <= ${#1}; i++)); do
        diagonal=${row[0]} row[0]=$i
        for ((j = 1; j <= ${#2}; j++)); do
            up=${row[j]} best=$diagonal
            [[ ${1:i-1:1} == "${2:j-1:1}" ]] || best=$((best + 1))
            ((best <= up)) || best=$((up + 1))
            ((best <= row[j - 1])) || best=$((row[j - 1] + 1))
            row[j]=$best diagonal=$up
        done
    done
    echo "${row[${#2}]}"
}

unknown_option() {
    local name near='' edits fewest=4
    for name in "${!kind[@]}"; do
        edits=$(distance "$1" "$name")
        if ((${#1} > 3)) && [[ $name == *"$1"* || $1 == *"$name"* ]]; then edits=1; fi
        if ((edits < fewest)); then fewest=$edits near=$name; fi
    done
    die "unknown option --$1${near:+; did you mean --$near?} (--help lists all)"
}

set_option() { # set_option NAME VALUE, checked by the option's kind
    local name=$1 value=$2
    case ${kind[$name]} in
        number | count)
            [[ $value =~ ^[0-9]{1,6}$ ]] || die "--$name takes a whole number, not '$value'"
            value=$((10#$value))
            [[ ${kind[$name]} == number ]] || ((value > 0)) || die "--$name takes a number from 1 on, not '$value'"
            ;;
        bool) [[ $value == true || $value == false ]] || die "--$name takes true or false, not '$value'" ;;
        */*) # one of these words
            [[ $value != */* && /${kind[$name]}/ == */$value/* ]] ||
                die "--$name takes ${kind[$name]//\// or }, not '$value'"
            ;;
        word) [[ $value =~ ^[A-Za-z0-9_.:-]+$ ]] || die "--$name takes a name without blanks, not '$value'" ;;
        path | command)
            [[ -n $value ]] || die "--$name needs a value"
            # A path is relative to where the user stands, so it is made whole before any cd.
            [[ ${kind[$name]} == command && $value != */* ]] || value=$(realpath -ms -- "${value/#\~\//$HOME/}")
            ;;
    esac
    opt[$name]=$value given[$name]=1
}

parse_options() { # --name value or --name=value, dashes or underscores, the last one wins
    local name type default text
    while IFS='|' read -r name type default text; do
        kind[$name]=$type opt[$name]=$default
    done <<<"$OPTIONS"
    while (($#)); do
        [[ $1 != --help && $1 != -h ]] || { usage && exit 0; }
        [[ $1 == --?* ]] || die "stray argument '$1': options look like --stage 3 (quote a value that holds blanks)"
        name=${1%%=*} name=${name#--} name=${name//-/_}
        [[ $name =~ ^[a-z_]+$ && -n ${kind[$name]-} ]] || unknown_option "$name"
        if [[ $1 == *=* ]]; then
            set_option "$name" "${1#*=}"
        elif (($# > 1)) && [[ $2 != --* ]]; then
            set_option "$name" "$2"
            shift
        else
            die "--$name needs a value, as in --$name ${opt[$name]:-VALUE}"
        fi
        shift
    done
}
