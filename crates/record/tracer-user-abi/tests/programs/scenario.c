/* What can happen to a traced program; each mode is a scenario of a test. */
#define _GNU_SOURCE
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#ifdef PROVIDER_MAJOR /* a provider of another version */
#include <lttng/ust-events.h>
#undef LTTNG_UST_PROVIDER_MAJOR
#define LTTNG_UST_PROVIDER_MAJOR PROVIDER_MAJOR
#endif
#include "scenario-tp.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void ticks(int count, int from)
{
	int i;

	for (i = 0; i < count; i++)
		lttng_ust_tracepoint(scenario, tick, from + i);
}

static void check(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void wait_child(pid_t child)
{
	int status;

	check(waitpid(child, &status, 0) == child, "waitpid");
	if (status) {
		fprintf(stderr, "child: status %x\n", status);
		exit(1);
	}
}

static void do_jumps(int n, int alternate);

/* -- told line by line */

static void obey(void)
{
	char line[256];
	static char bytes[100000];

	while (fgets(line, sizeof line, stdin)) {
		int a = 0, b = 0;

		if (sscanf(line, "tick %d %d", &a, &b) >= 1)
			ticks(a, b);
		else if (sscanf(line, "large %d", &a) == 1)
			lttng_ust_tracepoint(scenario, large, bytes, a);
		else if (sscanf(line, "jumps %d", &a) == 1)
			do_jumps(a, -1);
		else if (!strncmp(line, "closefds", 8)) {
			for (a = 3; a < 1024; a++)
				close(a);
			/* And all the numbers become files of our own. */
			for (a = 0; a < 100; a++)
				check(open("/dev/null", O_RDWR) >= 0, "open");
		} else if (!strncmp(line, "countfds", 8)) {
			DIR *dir = opendir("/proc/self/fd");

			while (readdir(dir))
				a++;
			closedir(dir);
			printf("%d\n", a);
			fflush(stdout);
			continue;
		}
		puts("ok");
		fflush(stdout);
	}
}

/* -- processes */

static void do_fork(int n)
{
	pid_t child;

	ticks(n, 0);
	child = fork();
	check(child >= 0, "fork");
	if (!child) {
		ticks(n, 1000);
		/* As long as the test's daemon wants to see us. */
		if (getenv("LINGER"))
			usleep(300000);
		_exit(0);
	}
	wait_child(child);
	ticks(n, 2000);
}

static void do_raw_fork(int n)
{
	pid_t child;

	ticks(n, 0);
	child = syscall(SYS_fork);
	check(child >= 0, "fork");
	if (!child) {
		ticks(n, 1000);
		syscall(SYS_exit_group, 0);
	}
	wait_child(child);
	ticks(n, 2000);
}

static void do_vfork(int n)
{
	pid_t child;
	static volatile int count;

	count = n;
	ticks(n, 0);
	child = vfork();
	if (!child) {
		ticks(count, 1000);
		_exit(0);
	}
	check(child > 0, "vfork");
	wait_child(child);
	ticks(count, 2000);
}

static int clone_main(void *count)
{
	ticks(*(int *) count, 1000);
	return 0;
}

static void do_clone(int n, int flags)
{
	static char stack[65536] __attribute__((aligned(16)));
	pid_t child;

	ticks(n, 0);
	child = clone(clone_main, stack + sizeof stack, flags | SIGCHLD, &n);
	check(child > 0, "clone");
	wait_child(child);
	ticks(n, 2000);
}

/* -- signals */

static volatile int handled, calls;
static sigjmp_buf jump;
static int jumps;

static void handler(int signal)
{
	(void) signal;
	lttng_ust_tracepoint(scenario, handled, handled);
	handled++;
	if (jumps)
		siglongjmp(jump, 1);
}

/* A field's value: raises the signal in the middle of the traced call. */
static int raise_inside(int n)
{
	calls++;
	raise(SIGUSR1);
	return n;
}

static int plain(int n)
{
	return n;
}

static void on_signal(int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	check(!sigaction(SIGUSR1, &action, NULL) && !sigaction(SIGALRM, &action, NULL), "sigaction");
}

static void do_signals(int n)
{
	struct itimerval timer = { { 0, 100 }, { 0, 100 } };
	int i;

	on_signal(0);
	for (i = 0; i < n; i++)
		lttng_ust_tracepoint(scenario, slow, i, raise_inside);
	setitimer(ITIMER_REAL, &timer, NULL);
	ticks(300000, 0);
	memset(&timer, 0, sizeof timer);
	setitimer(ITIMER_REAL, &timer, NULL);
	printf("%d %d\n", calls, handled);
}

static void leave(int signal)
{
	(void) signal;
	exit(0);
}

/* Ends the program inside a traced call. */
static void do_leave(void)
{
	struct sigaction action = { .sa_handler = leave };

	check(!sigaction(SIGUSR1, &action, NULL), "sigaction");
	ticks(3, 0);
	lttng_ust_tracepoint(scenario, slow, 0, raise_inside);
}

static void do_jumps(int n, int alternate)
{
	stack_t stack = { .ss_size = 65536 };
	volatile int i;

	stack.ss_sp = malloc(stack.ss_size);
	check(!sigaltstack(&stack, NULL), "sigaltstack");
	on_signal(alternate > 0 ? SA_ONSTACK : 0);
	jumps = 1;
	for (i = 0; i < n; i++) {
		if (!sigsetjmp(jump, 1))
			lttng_ust_tracepoint(scenario, slow, i, raise_inside);
		lttng_ust_tracepoint(scenario, slow, i, plain);
	}
	jumps = 0;
	if (alternate < 0)
		return;
	ticks(n, 0);
	printf("%d\n", handled);
}

static void deeper(int depth)
{
	if (depth > 0)
		lttng_ust_tracepoint(scenario, slow, depth, raise_inside);
}

static void nested_handler(int signal)
{
	(void) signal;
	handled++;
	deeper(7 - handled);
	handled--;
}

static void do_nest(void)
{
	struct sigaction action = { .sa_handler = nested_handler, .sa_flags = SA_NODEFER };

	check(!sigaction(SIGUSR1, &action, NULL), "sigaction");
	deeper(7);
	ticks(1, 0);
}

/* -- threads */

static int per_thread;

static void *thread_main(void *number)
{
	ticks(per_thread, (int) (long) number * 1000000);
	return NULL;
}

static void do_threads(int count, int n)
{
	pthread_t threads[64];
	int i, round;

	per_thread = n;
	for (round = 0; round < 4; round++) {
		for (i = 0; i < count; i++)
			check(!pthread_create(&threads[i], NULL, thread_main, (void *) (long) (round * count + i)), "thread");
		for (i = 0; i < count; i++)
			pthread_join(threads[i], NULL);
	}
}

/* -- memory */

static long status_kb(const char *name)
{
	char line[256];
	long kb = -1;
	FILE *file = fopen("/proc/self/status", "r");

	while (fgets(line, sizeof line, file))
		if (!strncmp(line, name, strlen(name)))
			kb = atol(line + strlen(name) + 1);
	fclose(file);
	return kb;
}

__attribute__((constructor(101)))
static void lock_early(void)
{
	if (getenv("LOCK_MEMORY"))
		check(!mlockall(MCL_FUTURE), "mlockall");
}

/* -- the hot path calls nobody */

static volatile long allocations;
extern void *__libc_malloc(size_t);

void *malloc(size_t size)
{
	allocations++;
	return __libc_malloc(size);
}

static void do_quiet(int n)
{
	/* Only write and exit_group; anything else kills. */
	struct sock_filter code[] = {
		{ BPF_LD | BPF_W | BPF_ABS, 0, 0, 0 },
		{ BPF_JMP | BPF_JEQ | BPF_K, 2, 0, SYS_write },
		{ BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SYS_exit_group },
		{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS },
		{ BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
	};
	struct sock_fprog program = { 5, code };
	static const char text[300];
	char line[64];
	long before;
	int i;

	ticks(1, -1);
	errno = 77;
	before = allocations;
	check(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	check(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), "seccomp");
	errno = 77;
	for (i = 0; i < n; i++) {
		lttng_ust_tracepoint(scenario, tick, i);
		if (i % 16 == 0)
			lttng_ust_tracepoint(scenario, large, text, sizeof text);
	}
	i = snprintf(line, sizeof line, "allocations %ld errno %d\n", allocations - before, errno);
	syscall(SYS_write, 1, line, i);
	syscall(SYS_exit_group, 0);
}

/* -- stepped by a debugger */

static void do_stepped(int n)
{
	int status;
	long steps = 0;
	pid_t child;

	child = fork();
	check(child >= 0, "fork");
	if (!child) {
		ticks(1, 0);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		ticks(n, 100);
		_exit(0);
	}
	check(waitpid(child, &status, 0) == child, "waitpid");
	while (!WIFEXITED(status)) {
		check(!WIFSIGNALED(status), "killed");
		check(!ptrace(PTRACE_SINGLESTEP, child, 0, 0), "step");
		check(waitpid(child, &status, 0) == child, "waitpid");
		steps++;
	}
	printf("%d\n", steps > 1000);
}

/* -- libraries that come and go */

static void do_dlopen(const char *path, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		void *library = dlopen(path, RTLD_NOW);
		void (*fire)(int);

		if (!library) {
			fprintf(stderr, "%s\n", dlerror());
			exit(1);
		}
		fire = (void (*)(int)) dlsym(library, "fire");
		check(fire != NULL, "fire");
		fire(i);
		check(!dlclose(library), "dlclose");
		if (dlopen(path, RTLD_NOW | RTLD_NOLOAD)) {
			fprintf(stderr, "still loaded\n");
			exit(1);
		}
	}
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "obey";
	int n = argc > 2 ? atoi(argv[2]) : 10;
	int m = argc > 3 ? atoi(argv[3]) : 10;

	if (!strcmp(mode, "obey"))
		obey();
	else if (!strcmp(mode, "ticks"))
		ticks(n, argc > 3 ? m : 0);
	else if (!strcmp(mode, "fork"))
		do_fork(n);
	else if (!strcmp(mode, "rawfork"))
		do_raw_fork(n);
	else if (!strcmp(mode, "vfork"))
		do_vfork(n);
	else if (!strcmp(mode, "clone"))
		do_clone(n, CLONE_VM | CLONE_VFORK);
	else if (!strcmp(mode, "clonefork"))
		do_clone(n, 0);
	else if (!strcmp(mode, "signals"))
		do_signals(n);
	else if (!strcmp(mode, "jumps"))
		do_jumps(n, m);
	else if (!strcmp(mode, "leave"))
		do_leave();
	else if (!strcmp(mode, "nest"))
		do_nest();
	else if (!strcmp(mode, "threads"))
		do_threads(n, m);
	else if (!strcmp(mode, "quiet"))
		do_quiet(n);
	else if (!strcmp(mode, "stepped"))
		do_stepped(n);
	else if (!strcmp(mode, "dlopen"))
		do_dlopen(argv[2], m);
	else if (!strcmp(mode, "memory")) {
		ticks(n, 0);
		/* What the program maps from now on is locked. */
		check(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "mmap");
		printf("%ld %ld\n", status_kb("VmRSS:"), status_kb("VmLck:"));
	} else {
		fprintf(stderr, "unknown mode %s\n", mode);
		return 2;
	}
	return 0;
}
