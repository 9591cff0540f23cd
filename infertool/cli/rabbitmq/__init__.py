"""`infertool rabbitmq`: what only RabbitMQ needs."""
