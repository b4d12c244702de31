/* The C program as C++. */
#include "all.c"
