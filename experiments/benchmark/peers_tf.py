"""The original notebook's part of what the benchmark times (extra `bench-tf`): TensorFlow's graphs and sessions."""

import os

import numpy as np

import jaxmnist as jm

from . import peers

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

tf1 = tf.compat.v1


def _arrays(split: jm.Split):
    return (split.inputs.reshape(len(split.inputs), -1) / 255).astype(np.float32), split.targets.astype(np.int64)


def notebook(dataset: jm.Dataset, runs: dict, num_steps: int) -> peers.Peer:
    """Returns the double loop of the notebook: one graph, a session for each cell, batches by feed_dict."""
    images, labels = _arrays(dataset.train)
    test_images, test_labels = _arrays(dataset.test)
    num_classes = len(dataset.class_names)
    graph = tf.Graph()
    with graph.as_default():
        x = tf1.placeholder(tf.float32, [None, images.shape[1]])
        y = tf1.placeholder(tf.int64, [None])
        rate = tf1.placeholder(tf.float32, [])
        kernel, bias = (tf1.Variable(tf.zeros(shape)) for shape in ([images.shape[1], num_classes], [num_classes]))
        logits = tf.matmul(x, kernel) + bias
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        step = tf1.train.GradientDescentOptimizer(rate).minimize(loss)
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), y), tf.float32))
        init = tf1.global_variables_initializer()

    sessions: list = []

    def train_all():
        while sessions:
            sessions.pop().close()
        for learning_rate, batch_size, seed in peers.cells(runs):
            session = tf1.Session(graph=graph)
            session.run(init)
            order = jm.example_order(len(labels), seed, num_steps * batch_size).reshape(num_steps, batch_size)
            for rows in order:
                session.run(step, {x: images[rows], y: labels[rows], rate: learning_rate})
            sessions.append(session)
        return sessions

    def evaluate(sessions):
        return np.array([session.run(accuracy, {x: test_images, y: test_labels}) for session in sessions])

    return peers.Peer("TensorFlow 1, sessions", train_all, evaluate)


def cnn(dataset: jm.Dataset, test: jm.Split, num_steps: int) -> peers.Peer:
    """Returns the notebook's CNN, whose training is continued at each call."""
    images, labels = _arrays(dataset.train)
    test_images, test_labels = _arrays(test)
    height, width = dataset.train.inputs.shape[1:3]
    num_classes = len(dataset.class_names)
    graph = tf.Graph()
    with graph.as_default():
        x = tf1.placeholder(tf.float32, [None, height * width])
        y = tf1.placeholder(tf.int64, [None])
        keep = tf1.placeholder(tf.float32, [])

        def variables(*shape):
            return tf1.Variable(tf.random.truncated_normal(shape, stddev=0.1)), tf1.Variable(tf.fill(shape[-1:], 0.1))

        hidden = tf.reshape(x, [-1, height, width, 1])
        for channels, features in ((1, 32), (32, 64)):
            kernel, bias = variables(5, 5, channels, features)
            hidden = tf.nn.relu(tf.nn.conv2d(hidden, kernel, 1, "SAME") + bias)
            hidden = tf.nn.max_pool2d(hidden, 2, 2, "SAME")
        size = -(-height // 4) * -(-width // 4) * 64
        kernel, bias = variables(size, 1024)
        hidden = tf.nn.relu(tf.matmul(tf.reshape(hidden, [-1, size]), kernel) + bias)
        hidden = tf1.nn.dropout(hidden, rate=1 - keep)
        kernel, bias = variables(1024, num_classes)
        logits = tf.matmul(hidden, kernel) + bias
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        step = tf1.train.AdamOptimizer(1e-4).minimize(loss)
        correct = tf.reduce_sum(tf.cast(tf.equal(tf.argmax(logits, 1), y), tf.int64))
        session = tf1.Session()
        session.run(tf1.global_variables_initializer())
    order = jm.example_order(len(labels), 0, num_steps * peers.CNN_BATCH_SIZE).reshape(num_steps, peers.CNN_BATCH_SIZE)

    def go_on():
        for rows in order:
            session.run(step, {x: images[rows], y: labels[rows], keep: 0.5})

    def evaluate(_):
        batches = zip(np.array_split(test_images, 20), np.array_split(test_labels, 20), strict=True)
        right = [session.run(correct, {x: images, y: labels, keep: 1.0}) for images, labels in batches]
        return sum(right) / len(test_labels)

    return peers.Peer("TensorFlow 1, oneDNN", go_on, evaluate)
