"""What is set in one process does not reach the other."""

from benchmarks.apart import Apart


class Counter:
    def __init__(self, start):
        self.count = start

    def add(self, number):
        self.count += number
        return self.count


def test_an_object_lives_in_a_process_of_its_own():
    first, second = Apart(Counter, 1), Apart(Counter, 10)
    assert first.call("add", 5) == 6
    assert second.call("add", 5) == 15
    assert first.call("count") == 6
    first.close()
    second.close()
