/* Something to probe: a function, and an SDT probe as <sys/sdt.h> writes it, with a semaphore and one
 * argument of each kind. Calls both as often as told, and says how often the semaphore was up. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((section(".probes"), visibility("hidden"))) volatile unsigned short probed_step_semaphore;
volatile uint64_t table[4] = { 11, 22, 33, 44 };

__attribute__((noinline, visibility("default"))) long probed_function(long number)
{
	__asm__ volatile("" : "+r"(number));
	return number * 2 + 1;
}

static __attribute__((noinline)) void step(int number, uint8_t small, const volatile uint64_t *at)
{
	__asm__ volatile(
		"990: nop\n"
		".pushsection .note.stapsdt,\"?\",\"note\"\n"
		".balign 4\n"
		".4byte 992f-991f, 994f-993f, 3\n"
		"991: .asciz \"stapsdt\"\n"
		"992: .balign 4\n"
		"993: .8byte 990b\n"
		".8byte _.stapsdt.base\n"
		".8byte probed_step_semaphore\n"
		".asciz \"probed\"\n"
		".asciz \"step\"\n"
		".asciz \"-4@%%edi 1@%%sil 8@8(%%rdx) -8@$-5 8@table+16(%%rip) 8@%%xmm0\"\n"
		"994: .balign 4\n"
		".popsection\n"
		".ifndef _.stapsdt.base\n"
		".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"
		".weak _.stapsdt.base\n"
		".hidden _.stapsdt.base\n"
		"_.stapsdt.base: .space 1\n"
		".size _.stapsdt.base, 1\n"
		".popsection\n"
		".endif\n"
		: : "D"(number), "S"((unsigned long)small), "d"(at) : "memory");
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 1;
	int up = 0;
	for (int i = 0; i < rounds; i++) {
		probed_function(i);
		if (probed_step_semaphore) {
			up++;
			step(-i, (uint8_t)(250 + i), table);
		}
	}
	printf("%d\n", up);
	fflush(stdout);
	/* With a second argument it waits for a line and goes on. */
	if (argc > 2) {
		char line[16];
		while (fgets(line, sizeof(line), stdin)) {
			printf("%ld\n", probed_function(atol(line)));
			fflush(stdout);
		}
	}
	return 0;
}
