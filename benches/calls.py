#!/usr/bin/env python3
"""How often bearerd asks the token service, by simulation: keys x lifetime x replicas, with and without jitter.

    benches/calls.py

All keys are first used within the same second, as after a restart; each is in use all the time. A renewal is due min(L/2, max(60 s, L/5)) ahead of the end
of a token that lives L seconds, times a factor from 0.8 to 1 (the jitter). Each replica has its own cache. Peaks are the most calls of any one second once
the start is over; the budget (`mint.rate`, 500 a second) would spread what is above it.
"""
import random, collections

HOURS = 24


def simulate(keys, lifetime, replicas, jitter, random):
    lead = min(lifetime / 2, max(60, lifetime / 5))
    seconds = collections.Counter()
    calls = 0
    for _ in range(keys * replicas):
        at = random.random()
        while at < HOURS * 3600:
            calls += 1
            seconds[int(at)] += 1
            at += lifetime - lead * (random.uniform(0.8, 1) if jitter else 1)
    first = lifetime - lead * 1.01
    return calls / HOURS / 3600, max(count for second, count in seconds.items() if second > min(first, 5))


def main():
    print("| keys | lifetime | replicas | calls/s | peak with jitter | peak without |")
    print("|---|---|---|---|---|---|")
    for keys, lifetime, replicas in [(1000, 600, 1), (1000, 3600, 1), (1000, 3600, 10), (1000, 86400, 1), (10000, 3600, 1), (10000, 3600, 3)]:
        rate, with_jitter = simulate(keys, lifetime, replicas, True, random.Random(1))
        _, without = simulate(keys, lifetime, replicas, False, random.Random(1))
        print(f"| {keys:,} | {lifetime} s | {replicas} | {rate:.2f} | {with_jitter} | {without} |")


main()
