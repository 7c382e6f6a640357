#!/usr/bin/env bash
# A SLURM of one node that sees no network and leaves nothing behind, for the tests. As root:
#
#   unshare --net --pid --fork --kill-child --mount-proc bash one_node_slurm.sh FOLDER
#
# munged, slurmctld and slurmd run until the namespace ends; FOLDER/ready appears when the node takes jobs, and
# FOLDER/slurm.conf is what SLURM_CONF must name. All files lie in FOLDER. Enter with nsenter to submit.
set -eu
folder=$1
node=$(hostname -s)
address=10.99.0.1 # getaddrinfo refuses names where lo has nothing but 127/8
ip link set lo up
ip address add "$address/32" dev lo

umask 022
mkdir -p "$folder/state" "$folder/spool" "$folder/socket"
mkdir -p -m 700 "$folder/munge"
head --bytes 1024 /dev/urandom > "$folder/munge/key"
chmod 400 "$folder/munge/key"

cat > "$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$node($address)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$folder/socket/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
DefMemPerNode=1000
KillWait=5
NodeName=$node NodeAddr=$address CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

munged --foreground --force --key-file="$folder/munge/key" --socket="$folder/socket/munge" \
  --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" &
until [ -S "$folder/socket/munge" ]; do sleep 0.05; done
slurmctld -D > "$folder/slurmctld.out" 2>&1 &
slurmd -D > "$folder/slurmd.out" 2>&1 &
until timeout 2 sinfo --noheader --format %T 2> /dev/null | grep --quiet idle; do sleep 0.1; done
touch "$folder/ready"
wait
