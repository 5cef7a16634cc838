#!/usr/bin/env bash
# A one-machine Slurm cluster for the tests: no systemd, no cgroups, no GPU and no accounting needed.
#
#   cluster.sh up      install what is missing, start the cluster, wait until it runs a command
#   cluster.sh down    cancel what runs and stop every process that `up` started
#   cluster.sh status  say whether it runs: 0 if it does, 3 if not
#
# Exit codes: 0 done; 77 it cannot be had here (one line on stderr says why, so a caller can say "not run: why");
# 1 it could be had but failed; 2 wrong usage; 3 not running (status only).
set -euo pipefail

readonly MARK="# Written by tests/slurm/cluster.sh: edits are lost at the next start"
readonly CONF_DIR=/etc/slurm
readonly CONF=$CONF_DIR/slurm.conf
readonly GRES_CONF=$CONF_DIR/gres.conf
readonly MUNGE_KEY=/etc/munge/munge.key
readonly RUN_DIR=/run/landscape-slurm
readonly LOG_DIR=/var/log/landscape-slurm
readonly SLURMCTLD_PID=/run/slurmctld.pid
readonly SLURMD_PID=/run/slurmd.pid
# Not the package's own pid file: a munged that something else started is used, but never stopped.
readonly MUNGED_PID=/run/munge/landscape.pid
readonly CANNOT=77

# Inside a job, or where a person works with another cluster, these would send the commands below elsewhere.
unset "${!SLURM_@}" "${!SBATCH_@}"
export SLURM_CONF=$CONF
# Slurm and munge live in sbin, which is not on everyone's path.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

cannot() {
    echo "slurm: $*" >&2
    exit "$CANNOT"
}

fail() {
    echo "slurm: $*" >&2
    local log
    for log in "$LOG_DIR"/*.log; do
        [[ -s $log ]] && { echo "--- the end of $log" >&2; tail -n 15 "$log" >&2; }
    done
    exit 1
}

# Does the process exist and is it more than a zombie? Where process 1 of a container reaps none, zombies stay forever.
exists() { [[ -n $(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline") ]]; } 2>/dev/null

# alive PID_FILE NAME: is the process of the pid file alive, and is it NAME? Process ids are used again, and pid files
# outlive a killed daemon, so a number alone proves nothing. Debian's binaries are called slurmd-wlm and so on.
alive() {
    local pid comm
    pid=$(cat "$1" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] && exists "$pid" || return 1
    comm=$(cat "/proc/$pid/comm" 2>/dev/null) || return 1
    [[ $comm == "$2" || $comm == "$2-wlm" ]]
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

not() { ! "$@"; }

# stop PID_FILE NAME SECONDS: TERM, then KILL after the time.
stop() {
    local pid
    if alive "$1" "$2"; then
        pid=$(cat "$1")
        kill -TERM "$pid" 2>/dev/null || true
        if ! wait_for "$3" not exists "$pid"; then
            kill -KILL "$pid" 2>/dev/null || true
            wait_for 5 not exists "$pid" || fail "$2 (process $pid) does not end"
        fi
    fi
    rm -f "$1"
}

munge_answers() { timeout 5 bash -c 'munge -n </dev/null | unmunge' >/dev/null 2>&1; }

node_state() { timeout 10 sinfo --noheader --Node --format=%T 2>/dev/null; }

# Jobs of others may run on it: a second `up` must then also find it running.
node_up() { [[ $(node_state) =~ ^(idle|mixed|allocated|completing)$ ]]; }

running() {
    ours && alive "$SLURMCTLD_PID" slurmctld && alive "$SLURMD_PID" slurmd && munge_answers && node_up
}

ours() { [[ -f $CONF && $(head -n 1 "$CONF") == "$MARK" ]]; }

no_jobs() {
    # An unanswered question is not an answer of "none".
    local jobs
    jobs=$(timeout 10 squeue --noheader --format=%i 2>/dev/null) && [[ -z $jobs ]]
}

# The ids of what jobs leave behind. A step's daemon outlives slurmd by design. A job's process that ignores TERM even
# outlives its step where the batch script does not: nothing but its environment then says that it was a job's. From
# /proc, since slim images have no pgrep.
left_behind() {
    local folder pid
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        if [[ $(cat "$folder/comm" 2>/dev/null) == slurmstepd* ]]; then
            echo "$pid"
        elif [[ $pid != "$$" ]] && grep --quiet --null-data --line-regexp --fixed-strings "SLURM_CONF=$CONF" \
            "$folder/environ" 2>/dev/null && grep --quiet --null-data '^SLURMD_NODENAME=' "$folder/environ" 2>/dev/null
        then
            echo "$pid"
        fi
    done
}

need_root() { [[ $(id -u) == 0 ]] || cannot "only root can $1 the cluster"; }

# One start or stop at a time: tests may run in several processes.
lock() {
    mkdir -p "$RUN_DIR"
    exec 9>"$RUN_DIR/lock"
    flock --wait 120 9 || fail "another start or stop of the cluster does not end"
}

installed() {
    local command
    for command in slurmctld slurmd sbatch srun sinfo squeue scancel munged munge unmunge; do
        command -v "$command" >/dev/null || return 1
    done
}

install_packages() {
    installed && return
    command -v apt-get >/dev/null || cannot "not installed, and there is no apt-get to install it with"
    local -x DEBIAN_FRONTEND=noninteractive
    local -a apt=(apt-get --quiet --yes --option Acquire::Retries=1 --option Acquire::http::Timeout=30
        --option DPkg::Lock::Timeout=60)
    local -a install=("${apt[@]}" install --no-install-recommends slurm-wlm munge)
    local log=$RUN_DIR/apt.log
    # The package lists of a fresh image are absent, and old lists name files that are gone: only then fetch new ones.
    if ! "${install[@]}" >"$log" 2>&1 9>&-; then
        "${apt[@]}" update >>"$log" 2>&1 9>&- || cannot "not installed, and apt-get update fails: $(why "$log")"
        "${install[@]}" >>"$log" 2>&1 9>&- || cannot "not installed, and apt-get install fails: $(why "$log")"
    fi
    installed || cannot "the packages slurm-wlm and munge lack commands that the tests need"
}

# The last error of apt-get, in one line.
why() { { grep '^[EW]: ' "$1" || echo "no reason given"; } | tail -n 1; }

start_munged() {
    munge_answers && return
    id munge >/dev/null 2>&1 || cannot "there is no user munge"
    # munged refuses folders that others could write to.
    install -d -o munge -g munge -m 0755 /run/munge
    install -d -o munge -g munge -m 0700 /etc/munge /var/log/munge
    install -d -o munge -g munge -m 0711 /var/lib/munge
    if [[ ! -s $MUNGE_KEY ]]; then
        (umask 077 && dd if=/dev/urandom of="$MUNGE_KEY" bs=128 count=1 status=none)
    fi
    chown munge:munge "$MUNGE_KEY"
    chmod 0400 "$MUNGE_KEY"
    # --force: the socket and the lock of a munged that was killed may still lie there.
    setpriv --reuid=munge --regid=munge --clear-groups munged --force --pid-file="$MUNGED_PID" </dev/null \
        >"$LOG_DIR/munged.log" 2>&1 9>&- || fail "munged does not start"
    wait_for 10 munge_answers || fail "munged does not answer"
}

make_gpus() {
    local number device
    for number in 0 1; do
        device=$RUN_DIR/gpu$number
        # Slurm only looks whether the file is there; both are another /dev/null.
        [[ -c $device ]] || mknod -m 0666 "$device" c 1 3 2>/dev/null \
            || cannot "device nodes for the pretended GPUs cannot be made"
    done
}

write_conf() {
    local host
    host=$(hostname -s)
    cat >"$GRES_CONF" <<END
$MARK
Name=gpu File=$RUN_DIR/gpu[0-1]
END
    cat >"$CONF" <<END
$MARK
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has run out: 120 s, or what is said here where that is 5 s or more.
AuthInfo=cred_expire=5
# Nobody gets mail.
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmctldParameters=preempt_send_user_signal
# The node has the CPUs and the memory said below even where the machine has fewer.
SlurmdParameters=config_overrides
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=$SLURMCTLD_PID
SlurmdPidFile=$SLURMD_PID
SlurmctldLogFile=$LOG_DIR/slurmctld.log
SlurmdLogFile=$LOG_DIR/slurmd.log
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
JobRequeue=1
# Tests wait for every one of these: act at once.
KillWait=5
# A client asks an absent slurmctld again every second for this long.
MessageTimeout=5
CompleteWait=0
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
}

up() {
    if running; then
        echo "slurm: already up"
        return
    fi
    need_root start
    if [[ -e $CONF ]] && ! ours; then
        cannot "$CONF is not of this script, and is left alone"
    fi
    lock
    if running; then
        echo "slurm: already up"
        return
    fi
    install_packages
    # What is left of a cluster that was killed, or that a person changed the files of.
    stop_all
    mkdir -p "$CONF_DIR" /var/spool/slurmctld /var/spool/slurmd "$LOG_DIR"
    rm -f "$LOG_DIR"/*.log
    make_gpus
    write_conf
    start_munged
    # -c: no jobs of an earlier cluster.
    slurmctld -c </dev/null >"$LOG_DIR/start.log" 2>&1 9>&- || fail "slurmctld does not start"
    # -c: no credentials and no jobs of an earlier cluster.
    slurmd -c </dev/null >>"$LOG_DIR/start.log" 2>&1 9>&- || fail "slurmd does not start"
    wait_for 60 node_up || fail "the node does not come up: sinfo says '$(node_state)'"
    local said
    said=$(timeout 60 srun --quiet hostname 2>&1 9>&-) || fail "srun hostname fails: $said"
    echo "slurm: up, and srun ran on $said"
}

stop_all() {
    if alive "$SLURMCTLD_PID" slurmctld && alive "$SLURMD_PID" slurmd; then
        # Jobs that ignore TERM are killed after KillWait.
        timeout 20 scancel --partition=debug 2>/dev/null || true
        wait_for 8 no_jobs || true
    fi
    # Each takes a second or two to end: both at once.
    local daemons
    stop "$SLURMD_PID" slurmd 10 &
    daemons=$!
    stop "$SLURMCTLD_PID" slurmctld 20
    wait "$daemons"
    local left
    left=$(left_behind)
    # shellcheck disable=SC2086
    [[ -z $left ]] || kill -KILL $left 2>/dev/null || true
    stop "$MUNGED_PID" munged 10
}

down() {
    if [[ -e $CONF ]] && ! ours; then
        cannot "$CONF is not of this script, and its cluster is left alone"
    fi
    if [[ ! -e $CONF ]]; then
        echo "slurm: was not up"
        return
    fi
    need_root stop
    lock
    stop_all
    echo "slurm: down"
}

status() {
    if running; then
        echo "slurm: up, the node is $(node_state)"
    else
        echo "slurm: not up"
        exit 3
    fi
}

case ${1-} in
    up | down | status) "$1" ;;
    *)
        echo "usage: $0 up|down|status" >&2
        exit 2
        ;;
esac
