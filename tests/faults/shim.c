/* A preloaded library that makes chosen system calls of a process fail, tear or end it.
 *
 * HOLDFAST_FAULTS names a control file (`struct control`, made by shim.py), mapped and shared by whoever
 * steers: it says which calls on which files are struck, from which one on, how often and how, and counts what
 * was seen and struck. HOLDFAST_FAULTS_UNDO names a log that gets, before every write that is not yet on the
 * disk, the bytes that it replaces, and a mark for every sync: enough to tell what a power cut may leave.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, TRUNCATE = 4, MAP = 8, RENAME = 16, UNLINK = 32 };
enum { PAGE = 4096 };
enum { KILL = -1, TEAR = -2, KILL_AFTER = -3, SHORTEN = -4 }; /* else a value for errno */

struct control {
    int32_t armed, calls, action, reserved;
    int64_t after, times, seen, struck;
    char path[256]; /* only files whose path holds this */
};

static struct control *control;
static int undo = -1;
static char boot[PATH_MAX]; /* stands for the kernel's file */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HOLDFAST_FAULTS"), *log = getenv("HOLDFAST_FAULTS_UNDO");
    if (!path) return;
    int handle = open(path, O_RDWR | O_CLOEXEC);
    if (handle >= 0) {
        void *map = (void *)syscall(SYS_mmap, NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
        close(handle);
        if (map != MAP_FAILED) control = map;
    }
    if (log) {
        snprintf(boot, sizeof boot, "%s.boot", log);
        undo = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (undo >= 0) { /* out of the way of code that counts on low numbers */
            int high = fcntl(undo, F_DUPFD_CLOEXEC, 700);
            if (high >= 0) { close(undo); undo = high; }
        }
    }
    if (!control || (log && undo < 0)) _exit(117); /* lest a test passes without faults */
}

static int concerns(const char *path) { return control && control->path[0] && strstr(path, control->path) != NULL; }

static int path_of(int handle, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && concerns(path);
}

/* What to do with a call on a file that concerns us: 0 go on, else the action. */
static int strike(int call) {
    if (!(control->calls & call) || !__atomic_load_n(&control->armed, __ATOMIC_SEQ_CST)) return 0;
    int64_t number = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (number <= control->after) return 0;
    if (control->times && number > control->after + control->times) return 0;
    __atomic_add_fetch(&control->struck, 1, __ATOMIC_SEQ_CST);
    if (control->action == KILL) syscall(SYS_kill, getpid(), SIGKILL);
    return control->action;
}

/* --- the undo log: one record is a header, the path and the bytes that were there --- */

struct record {
    char kind; /* W or S */
    char pad[3];
    uint32_t path_bytes;
    int64_t offset, old_bytes, file_bytes, new_bytes;
};

static void log_record(char kind, const char *path, int64_t offset, const char *old, int64_t old_bytes,
                       int64_t file_bytes, int64_t new_bytes) {
    struct record header = {kind, {0}, strlen(path), offset, old_bytes, file_bytes, new_bytes};
    struct iovec parts[3] = {{&header, sizeof header}, {(void *)path, header.path_bytes}, {(void *)old, old_bytes}};
    if (syscall(SYS_writev, undo, parts, 3) < 0) abort();
}

static void log_write(int handle, const char *path, int64_t offset, int64_t size) {
    if (undo < 0) return;
    int flags = fcntl(handle, F_GETFL);
    if (flags & O_DSYNC) return; /* on the disk when the call returns */
    struct stat info;
    if (fstat(handle, &info)) abort();
    if (offset < 0) offset = flags & O_APPEND ? info.st_size : syscall(SYS_lseek, handle, 0, SEEK_CUR);
    char *old = malloc(size ? size : 1);
    int64_t got = 0;
    int reader = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (reader >= 0) {
        ssize_t more = 1;
        while (got < size && (more = syscall(SYS_pread64, reader, old + got, size - got, offset + got)) > 0) got += more;
        syscall(SYS_close, reader);
    }
    log_record('W', path, offset, old, got, info.st_size, size);
    free(old);
}

/* --- the machine's boot, which is another one after a power cut: shim.py writes the file --- */

static const char *place(const char *path) {
    return boot[0] && path && !strcmp(path, "/proc/sys/kernel/random/boot_id") ? boot : path;
}
#define MODE(flags, mode) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return syscall(SYS_openat, AT_FDCWD, place(path), flags, mode);
}
int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return syscall(SYS_openat, AT_FDCWD, place(path), flags, mode);
}

/* --- the calls --- */

static ssize_t written(int handle, const char *path, const struct iovec *parts, int count, int64_t offset) {
    int64_t size = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    int action = strike(WRITE);
    if (action > 0) { errno = action; return -1; }
    if (action == 0 || action == KILL_AFTER) {
        log_write(handle, path, offset, size);
        ssize_t done = offset < 0 ? syscall(SYS_writev, handle, parts, count)
                                  : syscall(SYS_pwritev, handle, parts, count, offset, 0);
        if (action == KILL_AFTER) syscall(SYS_kill, getpid(), SIGKILL);
        return done;
    }
    /* TEAR and SHORTEN: the first half (at least a byte) of what was to be written is */
    char *whole; /* aligned, for files opened with O_DIRECT */
    if (posix_memalign((void **)&whole, 4096, size ? size : 1)) abort();
    int64_t at = 0;
    for (int i = 0; i < count; i++) { memcpy(whole + at, parts[i].iov_base, parts[i].iov_len); at += parts[i].iov_len; }
    int64_t half = size >= 2 * PAGE ? size / 2 / PAGE * PAGE : (size + 1) / 2;
    if (half % PAGE && fcntl(handle, F_GETFL) & O_DIRECT) half = 0; /* would be refused for another reason */
    log_write(handle, path, offset, half);
    ssize_t done = !half ? (errno = ENOSPC, -1) : offset < 0 ? syscall(SYS_write, handle, whole, half) : syscall(SYS_pwrite64, handle, whole, half, offset);
    free(whole);
    if (action == TEAR) syscall(SYS_kill, getpid(), SIGKILL);
    return done;
}

ssize_t write(int handle, const void *data, size_t size) {
    char path[PATH_MAX];
    struct iovec part = {(void *)data, size};
    return control && path_of(handle, path) ? written(handle, path, &part, 1, -1) : syscall(SYS_write, handle, data, size);
}
ssize_t writev(int handle, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    return control && path_of(handle, path) ? written(handle, path, parts, count, -1) : syscall(SYS_writev, handle, parts, count);
}
ssize_t pwrite64(int handle, const void *data, size_t size, off64_t offset) {
    char path[PATH_MAX];
    struct iovec part = {(void *)data, size};
    return control && path_of(handle, path) ? written(handle, path, &part, 1, offset)
                                            : syscall(SYS_pwrite64, handle, data, size, offset);
}
ssize_t pwrite(int handle, const void *data, size_t size, off_t offset) { return pwrite64(handle, data, size, offset); }
ssize_t pwritev64(int handle, const struct iovec *parts, int count, off64_t offset) {
    char path[PATH_MAX];
    return control && path_of(handle, path) ? written(handle, path, parts, count, offset)
                                            : syscall(SYS_pwritev, handle, parts, count, offset, 0);
}
ssize_t pwritev(int handle, const struct iovec *parts, int count, off_t offset) { return pwritev64(handle, parts, count, offset); }

/* Copies within the kernel would pass all of that by: Python falls back to reading and writing. */
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) {
    char path[PATH_MAX];
    if (control && path_of(out, path)) { errno = ENOSYS; return -1; }
    return syscall(SYS_sendfile, out, in, offset, count);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t count) { return sendfile64(out, in, offset, count); }
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t count, unsigned flags) {
    char path[PATH_MAX];
    if (control && path_of(out, path)) { errno = ENOSYS; return -1; }
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, count, flags);
}

static int synced(int handle, int number) {
    char path[PATH_MAX];
    if (!control || !path_of(handle, path)) return syscall(number, handle);
    int action = strike(SYNC);
    if (action > 0) { errno = action; return -1; }
    if (action == TEAR) syscall(SYS_kill, getpid(), SIGKILL);
    int done = syscall(number, handle);
    if (undo >= 0 && !done) log_record('S', path, 0, "", 0, 0, 0);
    if (action == KILL_AFTER) syscall(SYS_kill, getpid(), SIGKILL);
    return done;
}
int fsync(int handle) { return synced(handle, SYS_fsync); }
int fdatasync(int handle) { return synced(handle, SYS_fdatasync); }

/* The action of calls that happen or do not: 0 go on (and die afterwards with *after), -1 fail with errno. */
static int refused(const char *path, int call, int *after) {
    *after = 0;
    if (!control || !concerns(path)) return 0;
    int action = strike(call);
    if (action > 0) { errno = action; return -1; }
    if (action == TEAR) syscall(SYS_kill, getpid(), SIGKILL);
    *after = action == KILL_AFTER;
    return 0;
}
#define THEN(done) do { if (after) syscall(SYS_kill, getpid(), SIGKILL); return done; } while (0)

int ftruncate64(int handle, off64_t size) {
    char path[PATH_MAX];
    int after;
    path_of(handle, path);
    if (refused(path, TRUNCATE, &after)) return -1;
    int done = syscall(SYS_ftruncate, handle, size);
    THEN(done);
}
int ftruncate(int handle, off_t size) { return ftruncate64(handle, size); }
/* Lengthening that takes the pages at once. It returns the error. */
int posix_fallocate64(int handle, off64_t offset, off64_t size) {
    char path[PATH_MAX];
    int after;
    path_of(handle, path);
    if (refused(path, TRUNCATE, &after)) return errno;
    int done = syscall(SYS_fallocate, handle, 0, offset, size) ? errno : 0;
    THEN(done);
}
int posix_fallocate(int handle, off_t offset, off_t size) { return posix_fallocate64(handle, offset, size); }
int truncate64(const char *path, off64_t size) {
    int after;
    if (refused(path, TRUNCATE, &after)) return -1;
    int done = syscall(SYS_truncate, path, size);
    THEN(done);
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }
int rename(const char *from, const char *to) {
    int after;
    if (refused(to, RENAME, &after)) return -1;
    int done = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    THEN(done);
}
int unlink(const char *path) {
    int after;
    if (refused(path, UNLINK, &after)) return -1;
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    THEN(done);
}
int msync(void *start, size_t size, int flags) {
    int action = control ? strike(SYNC) : 0;
    if (action > 0) { errno = action; return -1; }
    return syscall(SYS_msync, start, size, flags);
}
/* A disk that takes only the half of a write is full, and says so. */
int statvfs64(const char *path, struct statvfs64 *info) {
    static int (*real)(const char *, struct statvfs64 *);
    if (!real) real = (int (*)(const char *, struct statvfs64 *))dlsym(RTLD_NEXT, "statvfs64");
    int done = real(path, info);
    if (!done && concerns(path) && control->armed && control->action == SHORTEN && control->struck) info->f_bavail = 0;
    return done;
}
int statvfs(const char *path, struct statvfs *info) { return statvfs64(path, (struct statvfs64 *)info); }
void *mmap64(void *start, size_t size, int protection, int flags, int handle, off64_t offset) {
    char path[PATH_MAX];
    int after;
    if (control && handle >= 0 && path_of(handle, path) && refused(path, MAP, &after)) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, start, size, protection, flags, handle, offset);
}
void *mmap(void *start, size_t size, int protection, int flags, int handle, off_t offset) {
    return mmap64(start, size, protection, flags, handle, offset);
}
