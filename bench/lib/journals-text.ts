/** The part of the page on the journals that no figure changes. */

export const opening = `# The two journals

This page is written by \`npm run bench journals -- --report docs/journals.md\`: all figures are of one run on one machine.

The masters' state is a log of commands that every master applies. Two implementations keep it; both are linearizable, both acknowledge only what is durable, and the masters above
do not know which one they have. **Raft**: the masters themselves keep the log, each on a disk of its own, and a majority decides ([how](raft-journal.md)). **ZooKeeper and shared
storage**: the log is objects in one directory or bucket, ZooKeeper says who should write it, and the storage itself decides whose writes count ([how](shared-journal.md)).`;

export const choosing = `**Choose Raft** unless something speaks against it: it needs nothing but three masters with a disk each, and it is the faster one to fail over. **Choose ZooKeeper with a directory** where storage that survives a machine
is there already (a filer, a cluster file system) and masters have no disks worth trusting: any one of them may then be thrown away, and one master is left alone with all of the log.
**Choose ZooKeeper with a bucket** where there are no disks at all: an operation waits for the bucket, some tens of milliseconds on a real one, but as many go on at once as clients ask for, and the log is as
safe as the bucket. With one master, choose neither: the local journal is simplest. The choice is not for ever: \`headpond journal migrate\` moves a running cluster from any to any.`;

export const tolerating = `## What each tolerates, costs and needs

| | Raft | ZooKeeper and shared storage |
| --- | --- | --- |
| masters lost at once | a minority: 1 of 3, 2 of 5 | all but one |
| more lost | no writes until a majority is back; disks that are lost for good need \`repair\` | none: any new master reads the log |
| a master's disk lost | it joins again as a new one | nothing is lost: it starts again |
| clock, pauses | nothing is lost or stale; a lease ends by the monotonic clock | the same, without leases: each read or write of the primary is confirmed by a look at the storage |
| storage lost | there is none but the masters' disks | no writes and no linearizable reads until it is back; if it is lost, restore a backup |
| ZooKeeper lost | there is none | the primary goes on; there is no new one until it is back |
| partition | the side with a majority goes on | whoever reaches the storage goes on; who reaches ZooKeeper may replace it |
| adding a master | join, catch up, then it votes | start it |
| to run beside the masters | nothing | three ZooKeeper servers; a filer or a bucket |
| money, in a cloud | three small disks | three small machines, or those of a ZooKeeper that exists; requests: one PUT for each group of commands, one GET for the look at the epoch, two GETs for each standby, and the standbys' questions for more |
| bytes | each command to every other master, and to each disk | each group of commands once to the storage, and from there once to each standby |
| traps | a wiped disk that comes back under the old name is refused | NFS must be mounted with \`lookupcache=positive\`; a bucket must honour \`If-None-Match\`; both are tried at start |

NFS itself was not measured and is not part of the tests: none can be mounted where they run. A disk that keeps the caches of an NFS client, and writes out of order, stands for it there.
GCS and Azure are not supported as storage of the log yet.

## When something is wrong

| question | Raft | ZooKeeper and shared storage |
| --- | --- | --- |
| who leads, who lags | \`headpond cluster status\` | the same; epoch instead of term |
| what is in the log | \`headpond journal dump --dir DIR\` on any master's disk | the objects are plain files or keys, \`log/EPOCH/SLOT\`: \`headpond journal dump\` reads them at rest |
| is it whole | \`headpond journal verify\`, \`journal diff\` between two masters | \`journal verify\`: checksums, cluster, names, the chain of slots and seals |
| why no leader | logs of the masters: who voted for whom | ZooKeeper's nodes below the root: who is next; the newest of \`epochs/\` : who claimed |
| states differ | compared by digest every so many entries, with an alarm | the same |
| damage | \`journal repair\`, or take the disk away and join anew | restore from a backup: there is one copy of the log, and the storage guards it |`;

export const closing = `## Alluxio's two

Alluxio 2.9 has the same two kinds, and they run beside ours in full runs. Its embedded journal (Apache Ratis) flushes each batch to disk; its journal in a directory never calls \`fsync\`, so its
rates are those of the page cache. Measured separately, with a leader that is frozen past its ZooKeeper session and thawed: 72 to 804 acknowledged writes of clients that follow were lost in two of three
runs with up to eight writers, all 50 of 50 of a client pinned to the old leader in three of three, and 200 of 200 pinned reads were stale. It guards its log by a flag in the process; ours asks the storage.`;
