/* Pi as an integral: the sum of 4 / (1 + x * x) over x in [from, to), a step dx apart.
 *
 * This is the one loop of the task. The C program links it and ours loads it with ctypes, so that the
 * two differ in how they start, talk and end, and in nothing else. The caller multiplies by dx.
 */
double kernel(double from, double to, double dx)
{
    double sum = 0.0;
    for (double x = from; x < to; x += dx) {
        sum += 4.0 / (1.0 + x * x);
    }
    return sum;
}
