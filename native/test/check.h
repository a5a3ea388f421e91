// What the tests of the Node-free parts need: a check that says where it failed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

inline uint32_t currentSeed = 0;

#define CHECK(condition)                                                                             \
  do {                                                                                               \
    if (!(condition)) {                                                                              \
      fprintf(stderr, "%s:%d: failed: %s (seed %u)\n", __FILE__, __LINE__, #condition, currentSeed); \
      exit(1);                                                                                       \
    }                                                                                                \
  } while (false)
