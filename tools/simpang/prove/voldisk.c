/* A disk with a volatile cache, as a FUSE file system that holds one file, disk.img.

   usage: voldisk BACKING SEED MOUNTPOINT -f -s

   Reads see everything that was written. Only a flush (fsync of disk.img) brings it to BACKING. At SIGUSR1 the
   power fails: of what was not flushed all, nothing, the first part, any part, or any part in another order
   reaches BACKING, sector by sector of 512 bytes; sectors that were being written may be filled with garbage.
   From then on every access fails with EIO. One line on standard output says what was left. */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512
#define NAME "/disk.img"

struct change {
    off_t offset;
    size_t size;
    char *data;
};

static int backing;
static off_t disk_size;
static char *now;
static struct change *changes;
static size_t count, room;
static int dead;
static unsigned long flushes, writes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void keep(const void *data, size_t size, off_t offset)
{
    if (pwrite(backing, data, size, offset) != (ssize_t)size) {
        perror("voldisk: backing");
        _exit(1);
    }
}

static void forget(void)
{
    for (size_t at = 0; at < count; at++)
        free(changes[at].data);
    count = 0;
}

static void lose_power(void)
{
    static const char *names[] = {"dropped", "kept", "first", "some", "mixed"};
    long mode = random() % 5;
    int destroys = mode >= 2 && random() % 2;
    size_t end = mode == 0 ? 0 : mode == 2 && count ? (size_t)random() % (count + 1) : count;
    unsigned long kept = 0, torn = 0, destroyed = 0;
    size_t *order = malloc((count + 1) * sizeof *order);
    for (size_t at = 0; at < count; at++)
        order[at] = at;
    for (size_t at = count; mode == 4 && at > 1; at--) {
        size_t other = (size_t)random() % at, before = order[at - 1];
        order[at - 1] = order[other];
        order[other] = before;
    }
    for (size_t at = 0; at < end; at++) {
        struct change *change = &changes[order[at]];
        int tears = mode >= 3 && random() % 3 == 0;
        if (mode >= 3 && !tears && random() % 2)
            continue;
        kept++;
        for (size_t place = 0; place < change->size; place += SECTOR) {
            size_t size = change->size - place < SECTOR ? change->size - place : SECTOR;
            if (tears && random() % 2)
                torn++;
            else
                keep(change->data + place, size, change->offset + (off_t)place);
        }
    }
    for (size_t at = 0; destroys && at < count; at++) {
        char garbage[SECTOR];
        if (random() % 4 || changes[at].size < SECTOR)
            continue;
        for (size_t byte = 0; byte < SECTOR; byte++)
            garbage[byte] = (char)random();
        keep(garbage, SECTOR, changes[at].offset + random() % (long)(changes[at].size / SECTOR) * SECTOR);
        destroyed++;
    }
    printf("%s, %zu unflushed writes, %lu kept, %lu sectors torn, %lu destroyed, after %lu flushes\n",
           names[mode], count, kept, torn, destroyed, flushes);
    fflush(stdout);
    free(order);
    forget();
}

static void *wait_for_the_cut(void *signals)
{
    int number;
    sigwait(signals, &number);
    pthread_mutex_lock(&lock);
    dead = 1;
    lose_power();
    pthread_mutex_unlock(&lock);
    return NULL;
}

static int get_attributes(const char *path, struct stat *status, struct fuse_file_info *info)
{
    (void)info;
    memset(status, 0, sizeof *status);
    if (!strcmp(path, "/")) {
        status->st_mode = S_IFDIR | 0700;
        status->st_nlink = 2;
    } else if (!strcmp(path, NAME)) {
        status->st_mode = S_IFREG | 0600;
        status->st_nlink = 1;
        status->st_size = disk_size;
    } else {
        return -ENOENT;
    }
    return 0;
}

static int list(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
                enum fuse_readdir_flags flags)
{
    (void)path, (void)offset, (void)info, (void)flags;
    fill(buffer, NAME + 1, NULL, 0, 0);
    return 0;
}

static int open_disk(const char *path, struct fuse_file_info *info)
{
    (void)info;
    return strcmp(path, NAME) ? -ENOENT : 0;
}

static int read_disk(const char *path, char *data, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)path, (void)info;
    pthread_mutex_lock(&lock);
    int done = dead ? -EIO : 0;
    if (!dead && offset < disk_size) {
        done = (int)(offset + (off_t)size > disk_size ? disk_size - offset : (off_t)size);
        memcpy(data, now + offset, (size_t)done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static int write_disk(const char *path, const char *data, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)path, (void)info;
    int done = (int)size;
    pthread_mutex_lock(&lock);
    if (dead) {
        done = -EIO;
    } else if (offset + (off_t)size > disk_size) {
        done = -ENOSPC;
    } else {
        if (count == room) {
            room = room ? room * 2 : 1024;
            changes = realloc(changes, room * sizeof *changes);
        }
        memcpy(now + offset, data, size);
        changes[count] = (struct change){offset, size, malloc(size)};
        memcpy(changes[count++].data, data, size);
        writes++;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static int flush_disk(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)path, (void)data_only, (void)info;
    pthread_mutex_lock(&lock);
    int done = dead ? -EIO : 0;
    if (!dead) {
        for (size_t at = 0; at < count; at++)
            keep(changes[at].data, changes[at].size, changes[at].offset);
        forget();
        flushes++;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static int set_size(const char *path, off_t size, struct fuse_file_info *info)
{
    (void)path, (void)size, (void)info;
    return 0;
}

static void *started(struct fuse_conn_info *connection, struct fuse_config *config)
{
    static sigset_t signals;
    static pthread_t thread;
    (void)connection;
    config->attr_timeout = 60;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_create(&thread, NULL, wait_for_the_cut, &signals);
    return NULL;
}

static const struct fuse_operations operations = {
    .init = started,
    .getattr = get_attributes,
    .readdir = list,
    .open = open_disk,
    .read = read_disk,
    .write = write_disk,
    .fsync = flush_disk,
    .truncate = set_size,
};

int main(int argc, char **argv)
{
    struct stat status;
    sigset_t signals;
    if (argc < 4) {
        fprintf(stderr, "usage: voldisk BACKING SEED MOUNTPOINT -f -s\n");
        return 2;
    }
    backing = open(argv[1], O_RDWR);
    if (backing < 0 || fstat(backing, &status)) {
        perror("voldisk");
        return 1;
    }
    srandom((unsigned)strtoul(argv[2], NULL, 10));
    disk_size = status.st_size;
    now = malloc((size_t)disk_size);
    if (!now || pread(backing, now, (size_t)disk_size, 0) != disk_size) {
        perror("voldisk");
        return 1;
    }
    /* Every thread, the one that waits for the cut included, inherits this. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    argv[2] = argv[0];
    return fuse_main(argc - 2, argv + 2, &operations, NULL);
}
