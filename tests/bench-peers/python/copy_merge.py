"""A fast loop in Python that writes orders to PostgreSQL: librdkafka's consumer, batches of 1000 by COPY into a temporary
table and from there by INSERT ... ON CONFLICT, one transaction each, then a commit of the offsets to Kafka.

Arguments: bootstrap servers, topic, records, URL of the database, statement that creates the table `stage`, statement that
merges it. Prints `first` at the first record and `last` when all are committed, then waits for the end of stdin.
"""

import sys
import time

import orjson
import psycopg
from confluent_kafka import Consumer, KafkaException

BATCH = 1000
# Exits if no record arrives for this long, in seconds.
SILENCE = 30


def row(value):
    order = orjson.loads(value)
    return (
        order["order_id"],
        order["user_id"],
        order["country"],
        order["ts"],
        order["amount"],
        order["currency"],
        orjson.dumps(order["items"]).decode(),
        order["status"],
    )


def batches(consumer):
    last = time.monotonic()
    while True:
        messages = consumer.consume(BATCH, 0.1)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        if messages:
            last = time.monotonic()
            yield messages
        elif time.monotonic() - last > SILENCE:
            sys.exit(f"no record for {SILENCE} s")


def main():
    bootstrap, topic, records, url, stage, merge = sys.argv[1:]
    records = int(records)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bench-python-{time.time_ns()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # The setting of the others; the default makes a slow reader slower still.
            "fetch.queue.backoff.ms": 20,
        }
    )
    consumer.subscribe([topic])
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(stage)
        connection.commit()
        done = 0
        for messages in batches(consumer):
            if done == 0:
                print("first", flush=True)
            with cursor.copy("copy stage from stdin") as copy:
                for message in messages:
                    copy.write_row(row(message.value()))
            cursor.execute(merge)
            connection.commit()
            consumer.commit(asynchronous=False)
            done += len(messages)
            if done >= records:
                break
    print("last", flush=True)
    sys.stdin.read()
    consumer.close()


main()
