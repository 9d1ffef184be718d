/* Primes by trial division: how many there are in [from, to).
 *
 * This is the one loop of the task. The C program links it and ours loads it with ctypes, so that the
 * two differ in how they start, talk and end, and in nothing else.
 */
#include <stdbool.h>
#include <stdint.h>

static bool is_prime(int64_t number)
{
    if (number < 2) {
        return false;
    }
    if (number % 2 == 0) {
        return number == 2;
    }
    for (int64_t divisor = 3; divisor * divisor <= number; divisor += 2) {
        if (number % divisor == 0) {
            return false;
        }
    }
    return true;
}

int64_t kernel(int64_t from, int64_t to)
{
    int64_t count = 0;
    for (int64_t number = from; number < to; number++) {
        count += is_prime(number);
    }
    return count;
}
