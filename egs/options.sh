# shellcheck shell=bash
# Option parser of recipe.sh, which sources this file. recipe.sh defines the table OPTIONS with the lines
# `name|kind|default|help`, which the parser and --help read. Results: opt[name] holds the value of each option, and
# given[name] is set for the options on the command line.
# shellcheck disable=SC2034  # recipe.sh reads `given`
declare -A opt=() kind=() given=()

# Option names of ESPnet and icefall which do not exist here: `name|toolkit|option here|reason or remark`. The third
# column is empty if there is no such option. docs/recipes.md holds the same table, and a test compares the two.
FOREIGN_OPTIONS='skip_data_prep|ESPnet|--stage 2|
skip_eval|ESPnet|--stop_stage 3|
skip_packing|ESPnet||stage 6 (export) runs only with --stop_stage 6
skip_upload|ESPnet||no stage uploads anything
skip_upload_hf|ESPnet||no stage uploads anything
asr_config|ESPnet|--conf|
train_config|ESPnet|--conf|
asr_args|ESPnet|--train_args "section.key=value"|
inference_config|ESPnet|--train_args "decode.key=value"|set it when you train; stage 4 reads it from config.yaml of the run
decode_config|ESPnet|--train_args "decode.key=value"|set it when you train; stage 4 reads it from config.yaml of the run
inference_args|ESPnet|--train_args "decode.key=value"|set it when you train; stage 4 reads it from config.yaml of the run
inference_nj|ESPnet|--ngpu|processes of stages 2 to 4, one per GPU
gpu_inference|ESPnet|--ngpu|0 decodes on the CPU, 1 or more on a GPU if there is one
inference_asr_model|ESPnet||stage 4 decodes the final weights (arkasr export --checkpoint writes others)
asr_exp|ESPnet|--expdir|
asr_tag|ESPnet|--expdir|one folder per experiment
dumpdir|ESPnet|--datadir|
max_epoch|ESPnet|--train_args "train.epochs=N"|
patience|ESPnet|--train_args "train.patience=N"|measurements of the dev error rate
keep_nbest_models|ESPnet|--train_args "train.final=best train.average=N"|the N best of the saved checkpoints
freeze_param|ESPnet|--train_args "model.freeze=[PART]"|encoder, adapter or decoder
resume|ESPnet||an interrupted run always resumes from its newest checkpoint
pretrained_model|ESPnet|--conf|a copy of conf/paper.yaml with the line "model: {path: FOLDER}"
download_model|ESPnet|--conf|a copy of conf/paper.yaml with the line "model: {path: HUB_ID}"
lang|ESPnet||corpus.yaml names the language
train_set|ESPnet||corpus.yaml lists the training parts
valid_set|ESPnet||corpus.yaml lists the dev parts
min_wav_duration|ESPnet||corpus.yaml holds min_seconds
max_wav_duration|ESPnet||corpus.yaml holds max_seconds
token_type|ESPnet|--train_args "tokenizer.kind=KIND"|sentencepiece or byte_bpe
bpe|ESPnet|--train_args "tokenizer.kind=KIND"|sentencepiece or byte_bpe
bpemode|ESPnet|--train_args "tokenizer.kind=KIND"|sentencepiece or byte_bpe
nbpe|ESPnet|--train_args "tokenizer.vocab_size=N"|
use_lm|ESPnet||no language model is used
lm_config|ESPnet||no language model is used
lm_args|ESPnet||no language model is used
lm_exp|ESPnet||no language model is used
inference_lm|ESPnet||no language model is used
use_ngram|ESPnet||no language model is used
beam_size|ESPnet||decoding is greedy
feats_type|ESPnet||the models compute log-mel features from 16 kHz audio
audio_format|ESPnet||audio is read in the format of the corpus
speed_perturb_factors|ESPnet|--train_args "augment.speeds=[0.9,1.0,1.1]"|one speed is drawn per clip and epoch
world-size|icefall|--ngpu|processes per machine
exp-dir|icefall|--expdir|
manifest-dir|icefall|--datadir|
max-duration|icefall|--train_args "data.max_seconds=SECONDS"|per batch and rank
num-epochs|icefall|--train_args "train.epochs=N"|
start-epoch|icefall||an interrupted run always resumes from its newest checkpoint
start-batch|icefall||an interrupted run always resumes from its newest checkpoint
full-libri|icefall||corpus.yaml lists the training parts, and those on disk are used
mini-libri|icefall||corpus.yaml lists the training parts, and those on disk are used
epoch|icefall||stage 4 decodes the final weights (arkasr export --checkpoint writes others)
iter|icefall||stage 4 decodes the final weights (arkasr export --checkpoint writes others)
avg|icefall|--train_args "train.average=N"|the last N checkpoints, or the best ones with train.final=best
use-averaged-model|icefall|--train_args "train.average=N"|the mean of N checkpoints, not of all steps
ctc-loss-scale|icefall|--train_args "train.ctc_weight=WEIGHT"|
decoding-method|icefall||decoding is greedy
base-lr|icefall|--train_args "optim.lr=RATE"|
seed|icefall|--train_args "seed=N"|
num-workers|icefall|--train_args "data.num_workers=N"|per rank
use-fp16|icefall|--train_args "fsdp.compute_dtype=bfloat16"|
save-every-n|icefall|--train_args "train.save_every=N"|optimizer steps
keep-last-k|icefall|--train_args "train.keep=N"|
bucketing-sampler|icefall||batches are always bucketed by duration
num-buckets|icefall|--train_args "data.num_buckets=N"|
shuffle|icefall||clips are always shuffled
tensorboard|icefall||every run writes tensorboard/
on-the-fly-feats|icefall||the models compute log-mel features from 16 kHz audio
bpe-model|icefall|--train_args "tokenizer.path=FOLDER"|
lang-dir|icefall|--train_args "tokenizer.path=FOLDER"|
enable-musan|icefall||no noise is added to the audio
enable-spec-aug|icefall|--train_args "augment.time_masks=2 augment.mel_masks=2"|'

die() {
    local text="run.sh: error: $*"
    echo "${text//[[:cntrl:]]/?}" >&2 # no escape sequences of a misspelt word reach the terminal
    exit 2
}

quoted() { # print the words such that a shell reads them back
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

distance() { # print the edit distance of two words
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

unknown_option() { # exit with the option here that has this meaning, or the nearest name
    local name near='' edits fewest=$((${#1} < 4 ? ${#1} : 4)) # a name with all letters changed is not near
    foreign_option "$1"
    for name in "${!kind[@]}"; do
        edits=$(distance "$1" "$name")
        if ((${#1} > 2)) && [[ $name == *"$1"* || $1 == *"$name"* ]]; then edits=1; fi
        if ((edits < fewest)); then fewest=$edits near=$name; fi
    done
    [[ -n $near ]] || near_foreign_option "$1"
    die "unknown option --$1${near:+; did you mean --$near?} (--help lists all options)"
}

near_foreign_option() { # exit if at most two letters differ from an option of ESPnet or icefall
    local name
    while IFS='|' read -r name _; do
        if (($(distance "$1" "${name//-/_}") <= 2 && ${#1} > 4)); then foreign_option "${name//-/_}"; fi
    done <<<"$FOREIGN_OPTIONS"
}

foreign_option() { # exit if this is an option of ESPnet or icefall
    local name toolkit option remark
    while IFS='|' read -r name toolkit option remark; do
        [[ ${name//-/_} == "$1" ]] || continue
        [[ -n $option ]] || die "--$name is an option of $toolkit that does not exist here: $remark"
        die "--$name is an option of $toolkit; use $option${remark:+ ($remark)}"
    done <<<"$FOREIGN_OPTIONS"
}

absolute_values() { # absolute_values NAME VALUE: print the values of --test_sets or --checkpoint with absolute paths
    local word head path separator=' '
    local -a words
    [[ ${kind[$1]} == sets ]] || separator=,
    IFS=$separator read -ra words <<<"$2"
    for word in "${words[@]}"; do
        head='' path=$word
        [[ ${kind[$1]} == models || $word == ?*=?* ]] || die "--$1 takes NAME=PATH, not '$word' (docs/recipes.md has the forms)"
        if [[ $path == *=* ]]; then head=${path%%=*}= path=${path#*=}; fi
        # Of a model, `PLUGIN:` may come before the path, and an id on the Hub is no path.
        if [[ ${kind[$1]} == models && $path =~ ^[A-Za-z0-9_.-]+: && ! -e $path ]]; then
            head+=${BASH_REMATCH[0]} path=${path#*:}
        fi
        path=${path/#\~\//${HOME-}/}
        if [[ ${kind[$1]} == sets || -e $path || $path == ./* || $path == ../* ]]; then path=$(realpath -ms -- "$path"); fi
        printf '%s' "${result:+$separator}$head$path"
        local result=1
    done
}

set_option() { # set_option NAME VALUE: check the value by the option's kind and store it
    local name=$1 value=$2
    case ${kind[$name]} in
        number | count)
            [[ $value =~ ^[0-9]{1,6}$ ]] || die "--$name takes a whole number of at most 6 digits, not '$value'"
            value=$((10#$value))
            [[ ${kind[$name]} == number ]] || ((value > 0)) || die "--$name takes a whole number of at least 1, not '$value'"
            ;;
        bool) [[ $value == true || $value == false ]] || die "--$name takes true or false, not '$value'" ;;
        */*) # one of these words
            [[ $value != */* && /${kind[$name]}/ == */"$value"/* ]] ||
                die "--$name takes ${kind[$name]//\// or }, not '$value'"
            ;;
        word) [[ $value =~ ^[A-Za-z0-9_.:-]+$ ]] || die "--$name takes a name without blanks, not '$value'" ;;
        sets | models) value=$(absolute_values "$name" "$value") || exit ;;
        path | command)
            [[ -n $value ]] || die "--$name is empty: give it a value, or omit it"
            [[ $value != \~/* || -n ${HOME-} ]] || die "--$name $value: HOME is not set; write the whole path"
            # Paths are relative to the user's working directory. They are made absolute before recipe.sh changes it.
            [[ ${kind[$name]} == command && $value != */* ]] || value=$(realpath -ms -- "${value/#\~\//${HOME-}/}")
            ;;
    esac
    opt[$name]=$value given[$name]=1
}

parse_options() { # read `--name value` and `--name=value`, with dashes or underscores; the last value counts
    local name type default text
    while IFS='|' read -r name type default text; do
        kind[$name]=$type opt[$name]=$default
    done <<<"$OPTIONS"
    while (($#)); do
        [[ $1 != --help && $1 != -h ]] || { usage && exit 0; }
        [[ $1 == --?* ]] || die "unexpected argument '$1': write options as --stage 3, and quote values that hold blanks"
        name=${1%%=*} name=${name#--} name=${name//-/_}
        [[ $name =~ ^[a-z_]+$ && -n ${kind[$name]-} ]] || unknown_option "$name"
        if [[ $1 == *=* ]]; then
            set_option "$name" "${1#*=}"
        elif (($# > 1)) && [[ $2 != --* ]]; then
            set_option "$name" "$2"
            shift
        else
            die "--$name needs a value (--help lists all options)"
        fi
        shift
    done
}
